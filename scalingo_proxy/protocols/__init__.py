"""Twisted protocols and factories. Everything they need is handed in."""
