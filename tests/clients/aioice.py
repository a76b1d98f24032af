"""Relays three datagrams by a TURN server with aioice, each of which the peer sends back."""

import asyncio
import ssl
import sys

from aioice import turn


class Receiver(asyncio.DatagramProtocol):
    def __init__(self):
        self.received = asyncio.Queue()

    def datagram_received(self, data, address):
        self.received.put_nowait((data, address))


async def main(server, transport, user, password, peer):
    peer = (peer.rsplit(":", 1)[0], int(peer.rsplit(":", 1)[1]))
    host, port = server.rsplit(":", 1)
    relay, receiver = await turn.create_turn_endpoint(
        Receiver,
        (host, int(port)),
        user,
        password,
        ssl=ssl.create_default_context(cafile="ca.pem") if transport == "tls" else False,
        transport="udp" if transport == "udp" else "tcp",
    )
    for number in range(3):
        data = b"datagram %d" % number
        relay.sendto(data, peer)
        received = await asyncio.wait_for(receiver.received.get(), 15)
        assert received == (data, peer), received
    print("relayed by", relay.get_extra_info("sockname"))
    relay.close()
    await asyncio.sleep(0.2)


asyncio.run(main(*sys.argv[1:]))
