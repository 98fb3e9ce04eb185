"""One hook per connection class: the only place that opens sockets and holds secrets."""
