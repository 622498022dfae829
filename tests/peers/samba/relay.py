"""Carries Kerberos between sockets that were bound outside of our network namespace and the KDC inside, and counts.

A socket stays in the namespace in which it was made, whoever holds it: no other bridge is needed.
"""

import socket
import threading

# A KDC that takes longer than this is broken.
PATIENCE = 30


class Relay:
    """`tcp` counts connections, `udp` datagrams from clients."""

    def __init__(self, tcp, udp, kdc):
        self.tcp = self.udp = 0
        self._kdc = kdc
        for carry, number in ((self._connections, tcp), (self._datagrams, udp)):
            threading.Thread(target=carry, args=(socket.socket(fileno=number),), daemon=True).start()

    def _connections(self, listener):
        while True:
            client, _ = listener.accept()
            self.tcp += 1
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client):
        try:
            with client, socket.create_connection(self._kdc, PATIENCE) as kdc:
                up = threading.Thread(target=_pump, args=(client, kdc), daemon=True)
                up.start()
                _pump(kdc, client)
                up.join(PATIENCE)
        except OSError:
            pass  # The client sees its connection closed.

    def _datagrams(self, outside):
        while True:
            request, client = outside.recvfrom(65536)
            self.udp += 1
            threading.Thread(target=self._datagram, args=(outside, request, client), daemon=True).start()

    def _datagram(self, outside, request, client):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
            inside.settimeout(PATIENCE)
            try:
                inside.connect(self._kdc)
                inside.send(request)
                outside.sendto(inside.recv(65536), client)
            except OSError:
                pass  # Lost, as datagrams may be.


def _pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
