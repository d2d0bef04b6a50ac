"""The verbs of the command line, one module each, with its help.

watch — the flight recorder, whose arguments are those of the service
many_hosts — verbs for the traces of many hosts
printed — verbs that print a file to install beside another program
"""
