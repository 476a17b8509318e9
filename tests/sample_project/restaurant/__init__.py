"""A restaurant whose waiter is an agent."""
