"""Shows what runs came to: figures, tables, pages, orders."""
