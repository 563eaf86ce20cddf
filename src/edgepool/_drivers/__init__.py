"""How to wait, to work in the background, and to keep time; not what to decide."""
