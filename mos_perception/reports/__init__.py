"""What people see of a run: pictures, videos, tables and words."""
