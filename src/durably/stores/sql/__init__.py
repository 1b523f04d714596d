"""What the SQL stores share: the form of rows, rules, and the tables and queries of SQLite's dialect."""
