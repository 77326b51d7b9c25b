"""Reports on runs, studies and comparisons: files in, facts, sections, then one HTML page, Markdown and CSV."""
