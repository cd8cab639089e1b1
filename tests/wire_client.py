#!/usr/bin/env python3
"""A Quipu client from wire-protocol.md alone: the proof that the page suffices.

    wire_client.py HOST:PORT append TYPE ID EVENT_TYPE DATA [--expected any|none|exists|N]
    wire_client.py HOST:PORT read [TYPE ID] [--from N] [--backward] [--limit N]
    wire_client.py HOST:PORT subscribe [TYPE ID] [--after N|end] [--count N]
    wire_client.py HOST:PORT version TYPE ID
    wire_client.py HOST:PORT status
    wire_client.py --self-test PAGE    compares what this client makes with the page's hexdump

Prints a JSON line for each answer, record or mark. Exit codes: 0 done, 1 the server said no,
2 wrong usage, 3 cannot reach the server or understand it.
"""

import argparse
import collections
import datetime
import json
import os
import socket
import struct
import sys
import time
import uuid
import zlib

MAGIC = b"QUIPUTCP"
HANDSHAKE_BYTES_MAX = 4096
(HELLO, APPEND, READ, SUBSCRIBE, CREDIT, CANCEL, VERSION_OF, STATUS, PING,
 SYSTEM_APPEND) = range(0x01, 0x0b)
WELCOME, APPENDED, RECORDS, MARK, END, VERSION_IS, STATUS_IS, PONG, ERROR = (
    0x81, 0x82, 0x83, 0x84, 0x85, 0x87, 0x88, 0x89, 0xff)
MARKS = {1: "checkpoint", 2: "caught_up", 3: "fell_behind"}
ENDS = {0: "complete", 1: "cancelled", 2: "stopping"}
NIL = uuid.UUID(int=0)

HEADER = struct.Struct("<IBBHQ")
LIMITS = struct.Struct("<9I")
RECORD = struct.Struct("<IIQQqIHBB")
ROOT = struct.Struct("<16s16sq" + "iI" * 11 + "H6x")
FIRST_POINTER = 40

Event = collections.namedtuple(
    "Event", "event_id aggregate_type aggregate_id event_type payload timestamp user_id "
    "schema_version content_type correlation_id causation_id ip_address user_agent traceparent "
    "custom", defaults=(0, None, 1, "application/json", "", "", "", "", "", b""))
Welcome = collections.namedtuple(
    "Welcome", "protocol record_format log_id event_bytes_max append_bytes_max append_events_max "
    "message_bytes_max window_events window_bytes streams_max heartbeat_ms dead_after_ms server")
Record = collections.namedtuple(
    "Record", "position version recorded_at event_id user_id timestamp schema_version "
    "aggregate_type aggregate_id event_type content_type correlation_id causation_id ip_address "
    "user_agent traceparent custom payload stored_bytes")


class Broken(Exception):
    """The other side does not keep to the page; the connection cannot go on."""


class Refused(Exception):
    """The server answered with Error."""

    def __init__(self, request_id, code, flags, text):
        super().__init__(text)
        self.request_id, self.code, self.text = request_id, code, text
        self.retryable, self.outcome_unknown = bool(flags & 1), bool(flags & 2)


# --- Fields (§3.1) ---


def put_bytes(value):
    return struct.pack("<I", len(value)) + value


def put_text(value):
    return put_bytes(value.encode())


def put_key(aggregate_type, aggregate_id):
    return put_text(aggregate_type) + put_text(aggregate_id)


def put_option(value, put):
    return b"\0" if value is None else b"\1" + put(value)


def put_list(values, put):
    return struct.pack("<I", len(values)) + b"".join(map(put, values))


def put_u64(value):
    return struct.pack("<Q", value)


class Fields:
    """A body that is read from front to back; what follows the known fields is ignored."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def raw(self, length):
        if self.at + length > len(self.body):
            raise Broken(f"the body ends inside a field at byte {self.at}")
        self.at += length
        return self.body[self.at - length:self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.raw(struct.calcsize("<" + code)))[0]

    def bytes(self):
        return self.raw(self.number("I"))

    def text(self):
        return self.bytes().decode()

    def uuid(self):
        return uuid.UUID(bytes=self.raw(16))

    def key(self):
        return self.text(), self.text()

    def list(self, take):
        return [take() for _ in range(self.number("I"))]


# --- Messages (§3 to §9) ---


def message(kind, request_id, body=b""):
    length = HEADER.size + len(body)
    padding = -length % 8
    return HEADER.pack(length + padding, kind, 0, 0, request_id) + body + bytes(padding)


def hello(client, log_id=None):
    versions = struct.pack("<HHHH", 1, 1, 1, 1)
    body = versions + (log_id or NIL).bytes + put_text(client) + put_bytes(b"")
    return message(HELLO, 0, body)


def put_expected(expected):
    """`expected` is "any", "none", "exists" or a version."""
    modes = {"any": 0, "none": 1, "exists": 2}
    if expected in modes:
        return struct.pack("<BQ", modes[expected], 0)
    return struct.pack("<BQ", 3, int(expected))


def put_event(event):
    texts = (event.event_type, event.content_type, event.correlation_id, event.causation_id,
             event.ip_address, event.user_agent, event.traceparent)
    return (event.event_id.bytes + (event.user_id or NIL).bytes
            + struct.pack("<qH", event.timestamp, event.schema_version)
            + put_key(event.aggregate_type, event.aggregate_id)
            + b"".join(map(put_text, texts)) + put_bytes(event.custom) + put_bytes(event.payload))


def append(request_id, events, expectations=(), traceparent="", kind=APPEND):
    """`expectations` are (aggregate type, aggregate id, expected)."""
    body = (put_text(traceparent)
            + put_list(expectations, lambda it: put_key(it[0], it[1]) + put_expected(it[2]))
            + put_list(events, put_event))
    return message(kind, request_id, body)


def put_filter(aggregate=None, aggregate_types=(), event_types=(), correlation_id=None,
               since=None, until=None, recorded_since=None, include_system=False):
    times = (since, until, recorded_since)
    return (put_option(aggregate, lambda key: put_key(*key))
            + put_list(aggregate_types, put_text) + put_list(event_types, put_text)
            + put_option(correlation_id, put_text)
            + b"".join(put_option(at, lambda at: struct.pack("<q", at)) for at in times)
            + bytes([include_system]))


def read(request_id, credit, start=None, backward=False, limit=None, **conditions):
    body = (put_filter(**conditions) + put_option(start, put_u64) + bytes([backward])
            + put_option(limit, put_u64) + struct.pack("<II", *credit))
    return message(READ, request_id, body)


def subscribe(request_id, credit, after=0, log_id=None, **conditions):
    """`after` is a position, or "end"; with `log_id` it is a checkpoint."""
    kind = 1 if after == "end" else 2 if log_id else 0
    position = 0 if after == "end" else int(after)
    place = struct.pack("<BQ", kind, position) + (log_id or NIL).bytes
    return message(SUBSCRIBE, request_id,
                   put_filter(**conditions) + place + struct.pack("<II", *credit))


def take_welcome(body):
    fields = Fields(body)
    head = fields.number("H"), fields.number("H"), fields.uuid()
    return Welcome(*head, *LIMITS.unpack(fields.raw(LIMITS.size)), fields.text())


def take_appended(body):
    fields = Fields(body)
    return {
        "duplicate": bool(fields.number("B")),
        "positions": fields.list(lambda: fields.number("Q")),
        "versions": [[*key, version] for key, version in
                     fields.list(lambda: (fields.key(), fields.number("Q")))],
    }


def take_error(request_id, body):
    fields = Fields(body)
    code, flags, _ = fields.number("H"), fields.number("B"), fields.number("B")
    return Refused(request_id, code, flags, fields.text())


# --- Records (§7.4; segments-format.md §6) ---


def take_records(body):
    fields = Fields(body)
    count, _ = fields.number("I"), fields.number("I")
    return [take_record(fields) for _ in range(count)]


def take_record(fields):
    header = RECORD.unpack(fields.raw(RECORD.size))
    archive_bytes, crc, position, version, recorded_at, key_id, flags, record_format, zero = header
    archive = fields.raw(archive_bytes)
    if record_format != 1 or key_id or flags or zero:
        raise Broken(f"record {position}: format {record_format} is not known")
    if archive_bytes % 8 or archive_bytes < ROOT.size or zlib.crc32(archive) != crc:
        raise Broken(f"record {position}: it is damaged")
    root = len(archive) - ROOT.size
    event_id, user_id, timestamp, *pointers, schema_version = ROOT.unpack(archive[root:])
    contents = [content(archive, root + FIRST_POINTER + 8 * index, *pointers[2 * index:][:2])
                for index in range(len(pointers) // 2)]
    texts = [text.decode() for text in contents[:9]]
    return Record(position, version, recorded_at, uuid.UUID(bytes=event_id),
                  uuid.UUID(bytes=user_id), timestamp, schema_version, *texts, *contents[9:],
                  RECORD.size + archive_bytes)


def content(archive, pointer_at, offset, length):
    begin = pointer_at + offset
    if begin < 0 or begin + length > len(archive) - ROOT.size:
        raise Broken("a content lies outside its archive")
    return archive[begin:begin + length]


# --- A connection (§2, §5, §8) ---


class Connection:
    """One connection, one request at a time."""

    def __init__(self, address, log_id=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=15)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received, self.bytes_max, self.last_id = b"", HANDSHAKE_BYTES_MAX, 0
        self.heard_at = self.sent_at = time.monotonic()
        self.heartbeat, self.dead_after = 5.0, 15.0
        self.send(MAGIC + hello("wire_client.py 1", log_id))
        if self.exactly(len(MAGIC)) != MAGIC:
            raise Broken("this is not a Quipu server")
        kind, _, body = self.message()
        if kind != WELCOME:
            raise Broken(f"kind {kind:02x} where Welcome belongs")
        self.welcome = take_welcome(body)
        self.bytes_max = self.welcome.message_bytes_max
        self.heartbeat = self.welcome.heartbeat_ms / 1000
        self.dead_after = self.welcome.dead_after_ms / 1000
        self.window = (self.welcome.window_events, self.welcome.window_bytes)

    def send(self, data):
        self.socket.settimeout(self.dead_after)
        self.socket.sendall(data)
        self.sent_at = time.monotonic()

    def exactly(self, length):
        """The next bytes; sends Ping while it waits, and gives up on a silent server."""
        while len(self.received) < length:
            now = time.monotonic()
            if now - self.heard_at > self.dead_after:
                raise Broken("the server is silent")
            if now - self.sent_at >= self.heartbeat:
                self.send(message(PING, 0))
            self.socket.settimeout(max(0.01, self.sent_at + self.heartbeat - time.monotonic()))
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise Broken("the server closed the connection")
            self.received += data
            self.heard_at = time.monotonic()
        taken, self.received = self.received[:length], self.received[length:]
        return taken

    def message(self):
        """The next message that is no sign of life: its kind, request id and body."""
        while True:
            # Time in which nobody read says nothing about the server.
            self.heard_at = time.monotonic()
            length, kind, flags, zero, request_id = HEADER.unpack(self.exactly(HEADER.size))
            if not HEADER.size <= length <= self.bytes_max or length % 8 or zero or flags:
                raise Broken("a header is not what the page says")
            body = self.exactly(length - HEADER.size)
            if kind == PING:
                self.send(message(PONG, request_id))
            elif kind == ERROR:
                raise take_error(request_id, body)
            elif kind != PONG:
                return kind, request_id, body

    def next_id(self):
        self.last_id += 1
        return self.last_id

    def answer(self, request_id, expected):
        kind, given, body = self.message()
        if given != request_id or kind != expected:
            raise Broken(f"kind {kind:02x} of request {given} was not asked for")
        return body

    def append(self, events, expectations=(), traceparent="", kind=APPEND):
        request_id = self.next_id()
        data = append(request_id, events, expectations, traceparent, kind)
        if len(data) + 8 * len(expectations) + 2048 > self.bytes_max:
            raise Refused(request_id, 332, 0, "the append is too large")
        self.send(data)
        return take_appended(self.answer(request_id, APPENDED))

    def version(self, aggregate_type, aggregate_id):
        request_id = self.next_id()
        self.send(message(VERSION_OF, request_id, put_key(aggregate_type, aggregate_id)))
        return Fields(self.answer(request_id, VERSION_IS)).number("Q")

    def status(self):
        request_id = self.next_id()
        self.send(message(STATUS, request_id))
        return json.loads(Fields(self.answer(request_id, STATUS_IS)).text())

    def read(self, **what):
        """Yields records."""
        request_id = self.next_id()
        self.send(read(request_id, self.window, **what))
        return (item for kind, item in self.stream(request_id) if kind == "record")

    def subscribe(self, **what):
        """Yields ("record", record) and (mark, position)."""
        request_id = self.next_id()
        self.send(subscribe(request_id, self.window, **what))
        return self.stream(request_id)

    def stream(self, request_id):
        """Yields a stream's items; gives credit back for what was handled, half a window at once."""
        events, size = 0, 0
        while True:
            kind, given, body = self.message()
            if given != request_id:
                raise Broken(f"kind {kind:02x} of request {given} was not asked for")
            if kind == END:
                return
            if kind == MARK:
                fields = Fields(body)
                yield MARKS[fields.number("B")], fields.number("Q")
            elif kind == RECORDS:
                for record in take_records(body):
                    yield "record", record
                    events, size = events + 1, size + record.stored_bytes
                if events * 2 >= self.window[0] or size * 2 >= self.window[1]:
                    self.send(message(CREDIT, request_id, struct.pack("<II", events, size)))
                    events, size = 0, 0
            else:
                raise Broken(f"kind {kind:02x} in a stream")


# --- The command line ---


def as_json(record):
    """A record as one line, spelled as everywhere in Quipu."""
    metadata = {name: getattr(record, name) for name in (
        "correlation_id", "causation_id", "ip_address", "user_agent", "traceparent")
        if getattr(record, name)}
    if record.user_id != NIL:
        metadata["user_id"] = str(record.user_id)
    if record.custom:
        metadata["custom"] = json.loads(record.custom)
    line = {
        "id": str(record.event_id), "aggregate_id": record.aggregate_id,
        "aggregate_type": record.aggregate_type, "event_type": record.event_type,
        "timestamp": spell(record.timestamp), "version": record.version, "metadata": metadata,
        "position": record.position, "recorded_at": spell(record.recorded_at),
        "schema_version": record.schema_version,
    }
    if record.content_type == "application/json":
        line["data"] = json.loads(record.payload)
    else:
        line.update(content_type=record.content_type, data_hex=record.payload.hex())
    return line


def spell(micros):
    epoch = datetime.datetime(1970, 1, 1)
    return (epoch + datetime.timedelta(microseconds=micros)).isoformat() + "Z"


def say(value):
    print(json.dumps(value, ensure_ascii=False), flush=True)


def of_aggregate(arguments):
    if not arguments.key:
        return {}
    return {"aggregate": tuple(arguments.key), "include_system": arguments.key[0].startswith("$")}


def run_append(connection, arguments):
    event = Event(new_id(), arguments.type, arguments.id, arguments.event_type,
                  arguments.data.encode(), timestamp=time.time_ns() // 1000)
    expected = [(arguments.type, arguments.id, arguments.expected)]
    kind = SYSTEM_APPEND if arguments.system else APPEND
    say(connection.append([event], expected, kind=kind))


def run_read(connection, arguments):
    for record in connection.read(start=getattr(arguments, "from"), backward=arguments.backward,
                                  limit=arguments.limit, **of_aggregate(arguments)):
        say(as_json(record))


def run_subscribe(connection, arguments):
    left = arguments.count
    for kind, item in connection.subscribe(after=arguments.after, **of_aggregate(arguments)):
        say(as_json(item) if kind == "record" else {kind: item})
        left = left - 1 if left and kind == "record" else left
        if left == 0:
            return


def run_version(connection, arguments):
    say({"version": connection.version(*arguments.key)})


def run_status(connection, _):
    say(connection.status())


def new_id():
    """A UUID of version 7: the time in milliseconds, then chance."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xf << 76) | 7 << 76
    return uuid.UUID(int=value & ~(3 << 62) | 2 << 62)


def parse(words):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    commands = parser.add_subparsers(required=True)

    def command(name, run, **key):
        sub = commands.add_parser(name)
        sub.set_defaults(run=run)
        if key:
            sub.add_argument("key", help="TYPE ID", **key)
        return sub

    sub = command("append", run_append)
    for word in ("type", "id", "event_type", "data"):
        sub.add_argument(word, metavar=word.upper())
    sub.add_argument("--expected", default="any")
    sub.add_argument("--system", action="store_true", help="what this client keeps for itself")
    sub = command("read", run_read, nargs="*")
    sub.add_argument("--from", type=int)
    sub.add_argument("--backward", action="store_true")
    sub.add_argument("--limit", type=int)
    sub = command("subscribe", run_subscribe, nargs="*")
    sub.add_argument("--after", default="0")
    sub.add_argument("--count", type=int)
    command("version", run_version, nargs=2)
    command("status", run_status)
    arguments = parser.parse_args(words)
    if len(getattr(arguments, "key", None) or []) not in (0, 2):
        parser.error("an aggregate is TYPE and ID")
    return arguments


# --- The self-test (§12) ---


def shown(page, side):
    data = b""
    for line in page.splitlines():
        if line.startswith(side + " 0000"):
            data += bytes.fromhex(line[12:].split("|")[0])
    return data


def compare(name, expected, given):
    if expected != given:
        sys.exit(f"{name}: the page says\n{expected!r}\nthis client says\n{given!r}")


def self_test(path):
    with open(path, encoding="utf-8") as file:
        page = file.read()
    event_id = uuid.UUID("0190aaaa-bbbb-7ccc-8ddd-000000000001")
    event = Event(event_id, "Call", "42", "Created", b'{"from":"agent"}',
                  timestamp=1_767_323_045_678_000, correlation_id="c-7")
    asked = (MAGIC + hello("page 1") + append(1, [event], [("Call", "42", "none")])
             + read(2, (1000, 8 << 20), aggregate=("Call", "42")))
    compare("client", shown(page, "c"), asked)
    stream = Fields(shown(page, "s"))
    compare("magic", MAGIC, stream.raw(8))
    answers = []
    while stream.at < len(stream.body):
        length, kind, _, _, request_id = HEADER.unpack(stream.raw(HEADER.size))
        answers.append((kind, request_id, stream.raw(length - HEADER.size)))
    compare("kinds", [(WELCOME, 0), (APPENDED, 1), (RECORDS, 2), (END, 2)],
            [answer[:2] for answer in answers])
    welcome, appended, records, end = (answer[2] for answer in answers)
    compare("Welcome", Welcome(
        1, 1, uuid.UUID("01234567-89ab-4def-8123-456789abcdef"), 1 << 20, 8 << 20, 2048,
        (8 << 20) + 65536, 1000, 8 << 20, 1000, 5000, 15000, "quipu 0.1.0"), take_welcome(welcome))
    compare("Appended", {"duplicate": False, "positions": [1], "versions": [["Call", "42", 1]]},
            take_appended(appended))
    compare("Records", [Record(
        1, 1, 1_767_323_045_678_901, event_id, NIL, event.timestamp, 1, "Call", "42", "Created",
        "application/json", "c-7", "", "", "", "", b"", event.payload, 224)],
        take_records(records))
    compare("End", "complete", ENDS[Fields(end).number("B")])
    print("7 messages agree with the page")


def main(words):
    if words[:1] == ["--self-test"] and len(words) == 2:
        self_test(words[1])
        return 0
    arguments = parse(words)
    try:
        arguments.run(Connection(arguments.address), arguments)
    except Refused as error:
        say({"error": error.code, "text": error.text, "retryable": error.retryable,
             "outcome_unknown": error.outcome_unknown})
        return 1
    except (OSError, Broken, UnicodeDecodeError, ValueError, KeyError) as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
