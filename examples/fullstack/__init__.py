"""A small product on durably: upload a CSV file, import it in a worker process, watch it live in the browser."""
