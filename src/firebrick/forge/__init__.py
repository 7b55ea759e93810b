"""Where sources come from: addresses of repositories, and getting one tree out of a repository nobody trusts."""
