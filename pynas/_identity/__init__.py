"""What an object is, in words that two processes agree on: what tells one run from another in a store."""
