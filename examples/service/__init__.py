"""A web service in seven short files, to copy: Starlette on hypercorn, PostgreSQL and MariaDB.

    cd examples
    DATABASE_URL=postgresql://me:secret@127.0.0.1/shop python -m service

`settings` reads the environment, `databases` opens the pools, `health` asks the servers, `routes`
answers requests, `errors` says in JSON what went wrong, `images` makes thumbnails, and `__main__`
serves. It needs the extras `asgi` and `psycopg`, and hypercorn[trio], starlette and trio-mysql.

Without a database it starts all the same: `/health/detailed` says 503 until the database is there.
"""
