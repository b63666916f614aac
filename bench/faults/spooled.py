"""Scenarios of the spool: in the list only where the gateway has one."""
