"""A least-privilege access broker between support tools and customer records."""
