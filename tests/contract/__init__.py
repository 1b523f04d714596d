"""The wire contract: a server that offers what the recorded scenarios need, and their replay."""
