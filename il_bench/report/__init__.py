"""Results -> report.json, and every view made from it: tables, pictures, a page, Markdown."""
