"""The master accepts photos, hands out tasks to workers, and serves results and the web page."""
