"""The commands: each parses, checks and calls one function; the only place that knows typer and rich."""
