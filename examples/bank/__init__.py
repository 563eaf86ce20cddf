"""The bank of the demo: its ledger, its workers, and what is shown meanwhile."""
