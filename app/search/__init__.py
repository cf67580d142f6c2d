"""Search: queries, filters, ranking, labels, look-alikes and the map."""
