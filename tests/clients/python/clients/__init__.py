"""The clients, a module for each package or family of packages, with a list `CLIENTS`."""
