"""What the page shows, as plain values: the JSON API hands them out, and the templates write them as HTML."""
