"""The sessions with the server: how they are opened, what their failures mean, and how calls wait for them."""
