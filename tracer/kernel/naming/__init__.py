"""The names that users gave to containers and pods: from files of the host, and from sockets."""
