"""From run folders to findings: everything that a report says, computed once and as one document.

Analysis reads runs; it never imports what trains them.
"""
