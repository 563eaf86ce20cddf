"""How to wait, to work in the background and to keep time; nothing of what to decide."""
