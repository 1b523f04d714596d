"""What the SQL stores share: the form of rows."""
