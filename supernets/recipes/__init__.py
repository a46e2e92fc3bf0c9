"""Training recipes, one file each; `recipe(...)` makes one."""
