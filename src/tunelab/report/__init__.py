"""Reports on runs, studies and comparisons: folders in, sections, then one HTML page, Markdown and CSV."""
