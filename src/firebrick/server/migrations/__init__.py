"""How the database came to be as it is: Alembic's environment and one file a change, shipped with the package."""
