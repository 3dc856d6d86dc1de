"""Who may call a service, and for what.

Every route names the access that it asks for (`route`), the gate says who sent a request (`authenticate`), and a
`Caller` carries the answer to the handlers. The threat model says what this stops and what it does not.
"""
