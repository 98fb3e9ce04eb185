import cProfile
import io
import pstats
import time


def cpu(f, n=30):
    t = time.process_time()
    for _ in range(n):
        f()
    return (time.process_time() - t) / n * 1000


def test_a(otto, vera, store, scene):
    print("roster", cpu(lambda: otto.open("/oauth-guard/")))
    print("cred", cpu(lambda: otto.open("/oauth-guard/credentials/seen")))
    print("json", cpu(lambda: otto.json("/oauth-guard/api/sources/fixed")))
    print("get only json", cpu(lambda: otto.get("/oauth-guard/api/incidents/1")))
    print("static", cpu(lambda: otto.get("/oauth-guard/static/guard.js")))
    print("post", cpu(lambda: otto.post("/oauth-guard/sources/fixed/unmute")))
    from airflow_oauth_guard.hooks import config

    def op():
        config._open.cache_clear()
        config.get_store().database.engine.dispose()

    print("open", cpu(op))
    pr = cProfile.Profile()
    pr.enable()
    for _ in range(30):
        otto.get("/oauth-guard/api/incidents/1")
    pr.disable()
    s = io.StringIO()
    pstats.Stats(pr, stream=s).sort_stats("cumtime").print_stats(45)
    print(s.getvalue())
    assert 0
