"""Plans, the networks that they ask for, and the store of what came of them."""
