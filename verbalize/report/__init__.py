"""What a run says about itself: figures, tables, self-contained HTML, and the ledger of claims."""
