#!/usr/bin/env python3
"""Reads a Quipu log from segments-format.md alone: the proof that the page suffices.

    second_reader.py DIR [--all]    every event, in order, a JSON line each; --all: `$` types too
    second_reader.py DIR --index N  checks the index file of sealed segment N and sums it up

Exit codes: 0 done, 1 damage (segment and offset are named), 2 wrong usage, 3 nothing to read.
"""

import argparse
import base64
import collections
import datetime
import itertools
import json
import os
import re
import struct
import sys
import uuid
import zlib

BLOCK = 4096
GROUP_BYTES_MAX = 17 << 20
IN_FLIGHT_BYTES_MAX = 4 * GROUP_BYTES_MAX
SEGMENT_BYTES_MAX = 1 << 30
DATA, START, WITNESS, CLEAN, SEAL = range(1, 6)
TEXTS, CONTENTS, FIRST_POINTER = 9, 11, 40
NIL = bytes(16)
MASK = (1 << 64) - 1

SEGMENT = struct.Struct("<8sII16s16sQQQqQQQq3976sQ")
GROUP = struct.Struct("<4sB3sIIIIQQQQQ24sQ")
FRAME = struct.Struct("<II8s")
RECORD = struct.Struct("<IIQQqIHBB")
ROOT = struct.Struct("<16s16sq" + "iI" * CONTENTS + "H6x")
INDEX = struct.Struct("<8sII16sQQqqIIIIIIq")

Header = collections.namedtuple(
    "Header", "magic format zero log_id segment_id number first_position epoch created_at "
    "segment_bytes previous_end previous_chain last_recorded_at zeros sum")
Group = collections.namedtuple(
    "Group", "kind offset end epoch first_position next_position durable_upto chain sum events")
Event = collections.namedtuple(
    "Event", "position version recorded_at event_id user_id timestamp schema_version texts "
    "custom payload offset header")
Index = collections.namedtuple(
    "Index", "magic format names_complete segment_id seal_sum first_position timestamp_min "
    "timestamp_max groups aggregates records correlations name_bytes key_bytes last_recorded_at")


class Invalid(Exception):
    """Bytes are not what the page says; what that means is for the caller to decide."""


class Damage(Exception):
    """Something that was durable cannot be read."""


class Nothing(Exception):
    """There is nothing here that this reader can read."""


def demand(holds, why):
    if not holds:
        raise Invalid(why)


# Checksums (§8) and the index's hash (§7)

def crc64_entry(value):
    for _ in range(8):
        value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value


CRC64_TABLE = [crc64_entry(byte) for byte in range(256)]


def crc64(data):
    table, crc = CRC64_TABLE, MASK
    for byte in data:
        crc = table[crc & 255 ^ byte] ^ crc >> 8
    return crc ^ MASK


def rotated(value, bits):
    return (value << bits | value >> 64 - bits) & MASK


def sip_round(a, b, c, d):
    a, c = a + b & MASK, c + d & MASK
    b, d = rotated(b, 13) ^ a, rotated(d, 16) ^ c
    a, c = rotated(a, 32) + d & MASK, c + b & MASK
    return a, rotated(b, 17) ^ c, rotated(c, 32), rotated(d, 21) ^ a


def siphash13(key, data):
    k0, k1 = struct.unpack("<QQ", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        a, b, c, d = sip_round(a, b, c, d ^ word)
        a ^= word
    c ^= 0xFF
    for _ in range(3):
        a, b, c, d = sip_round(a, b, c, d)
    return a ^ b ^ c ^ d


# Records (§6)

def read_record(body, at):
    """The event whose record starts at `at`, and the record's end."""
    demand(at + RECORD.size <= len(body), "a record header does not fit its frame")
    length, crc, position, version, recorded_at, key_id, flags, layout, zero = (
        RECORD.unpack_from(body, at))
    demand(layout == 1, f"record format {layout}, this reader knows 1")
    demand(not (key_id or flags or zero), "a record's zero field is not zero")
    demand(length % 8 == 0 and length >= ROOT.size, f"an archive of {length} bytes")
    end = at + RECORD.size + length
    demand(end <= len(body), "a record does not fit its frame")
    archive = body[at + RECORD.size:end]
    demand(zlib.crc32(archive) == crc, f"the crc of record {position} does not match")
    header = body[at:at + RECORD.size]
    return Event(position, version, recorded_at, *read_archive(archive), at, header), end


def read_archive(archive):
    root = len(archive) - ROOT.size
    event_id, user_id, timestamp, *pointers, schema_version = ROOT.unpack_from(archive, root)
    contents, end = [], 0
    for i in range(CONTENTS):
        start, length = root + FIRST_POINTER + 8 * i + pointers[2 * i], pointers[2 * i + 1]
        demand(end <= start and start + length <= root, "a content lies outside its place")
        end = start + length
        contents.append(archive[start:end])
    try:
        texts = [content.decode() for content in contents[:TEXTS]]
    except UnicodeDecodeError:
        raise Invalid("a text is not UTF-8") from None
    return event_id, user_id, timestamp, schema_version, texts, *contents[TEXTS:]


# Groups and segments (§4, §5)

class SegmentFile:
    def __init__(self, path):
        self.file, self.header = open(path, "rb", buffering=0), None

    def read(self, offset, length):
        return os.pread(self.file.fileno(), length, offset)

    def read_header(self):
        data = self.read(0, BLOCK)
        demand(len(data) == BLOCK, "the segment header is cut short")
        header = Header._make(SEGMENT.unpack(data))
        demand(header.magic == b"QUIPUSEG", "no segment header: the magic does not match")
        demand(crc64(data[:-8]) == header.sum, "the segment header's sum does not match")
        if header.format != 1:
            raise Nothing(f"a segment of format {header.format}, this reader knows 1")
        demand(not (header.zero or any(header.zeros)), "a segment header's zero is not zero")
        demand(header.segment_bytes % BLOCK == 0
               and 4 * BLOCK <= header.segment_bytes <= SEGMENT_BYTES_MAX,
               f"segment_bytes is {header.segment_bytes}")
        demand(header.number != 1 or header.previous_end == header.previous_chain == 0,
               "segment 1 names a segment before it")
        self.header = header

    def check_place(self, number, log_id, seal):
        header = self.header
        demand(header.number == number, f"the header says segment {header.number}")
        demand(header.log_id == log_id, f"it belongs to log {uuid.UUID(bytes=header.log_id)}")
        if seal:
            demand((header.previous_end, header.previous_chain, header.first_position)
                   == (seal.end, seal.sum, seal.first_position),
                   "the header does not fit the SEAL of the segment before")

    def read_group(self, offset):
        """The group at `offset`, if it is valid (§5.3)."""
        head = self.read(offset, GROUP.size)
        (_, kind, _, length, body_bytes, frames, records, epoch, own_offset,
         first_position, durable_upto, chain, _, group_sum) = read_group_header(head)
        demand(offset == own_offset, f"the group was written for offset {own_offset}")
        demand(offset + length <= self.header.segment_bytes, "a group passes segment_bytes")
        demand(durable_upto % BLOCK == 0 and BLOCK <= durable_upto <= offset,
               f"durable_upto is {durable_upto}")
        rest = self.read(offset + GROUP.size, length - GROUP.size)
        demand(len(rest) == length - GROUP.size, "the file ends inside a group")
        demand(not rest[body_bytes:].strip(b"\0"), "bytes after a group's body are not zero")
        events, headers, frames_found = read_frames(rest[:body_bytes])
        demand(len(events) == records and frames_found == frames, "a count does not match")
        demand(all(event.position == position for position, event
                   in enumerate(events, first_position)), "a group's positions have a gap")
        demand(crc64(self.header.segment_id + headers + head[:88]) == group_sum,
               "the group's sum does not match")
        return Group(kind, offset, offset + length, epoch, first_position,
                     first_position + records, durable_upto, chain, group_sum, events)

    def next_group(self, last):
        """The group after `last` (None: the first), if it is valid and continues the segment."""
        header = self.header
        group = self.read_group(last.end if last else BLOCK)
        demand(group.chain == (last or header).sum, "the group's chain does not match")
        demand(group.first_position == (last.next_position if last else header.first_position),
               f"first_position is {group.first_position}")
        demand(group.epoch >= (last or header).epoch, "the group's epoch is below the last")
        return group

    def magics(self, start):
        """The blocks from `start` on that begin like a group."""
        while chunk := self.read(start, 1024 * BLOCK):
            if b"QGRP" in chunk:
                yield from (start + at for at in range(0, len(chunk), BLOCK)
                            if chunk.startswith(b"QGRP", at))
            start += len(chunk)

    def lacks_durable(self, end):
        """Whether what stands beyond `end` shows that what stood at `end` was durable (§11)."""
        if self.has_more(end + IN_FLIGHT_BYTES_MAX):
            return True
        for offset in self.magics(end):
            try:
                group = self.read_group(offset)
            except Invalid:
                continue
            if group.durable_upto > end:
                return True
        return False

    def has_more(self, start):
        """Whether anything from `start` on is not zero."""
        while chunk := self.read(start, 1024 * BLOCK):
            if chunk.strip(b"\0"):
                return True
            start += len(chunk)
        return False

    def seems_used(self, first_position):
        """Whether a segment without a valid header has a group (§11)."""
        for at in self.magics(BLOCK):
            try:
                header = read_group_header(self.read(at, GROUP.size))
            except Invalid:
                continue
            own_offset, first = header[8:10]
            if own_offset == at and first >= first_position:
                return True
        return False


def read_group_header(head):
    """The fields of a group's header, if it is valid by itself."""
    demand(len(head) == GROUP.size, "the file ends where a group should start")
    fields = GROUP.unpack(head)
    magic, kind, zero, length, body_bytes, frames, records, _, _, first_position = fields[:10]
    demand(magic == b"QGRP" and DATA <= kind <= SEAL, "no group: its magic or kind is unknown")
    demand(not any(zero + fields[12]), "a group header's zero is not zero")
    demand(length == -(-(GROUP.size + body_bytes) // BLOCK) * BLOCK
           and length <= GROUP_BYTES_MAX, f"a group of {length} bytes")
    demand(all((frames, records, body_bytes)) if kind == DATA
           else not (body_bytes or frames or records),
           f"a group of kind {kind} with {frames} frames and {records} records")
    demand(first_position + records <= MASK, "a group's positions do not fit 64 bits")
    return fields


def read_frames(body):
    """The events of a group's body, its frame and record headers in order, its frames' number."""
    at, events, headers, frames = 0, [], [], 0
    while at < len(body):
        demand(at + FRAME.size <= len(body), "a frame header does not fit the body")
        length, records, zero = FRAME.unpack_from(body, at)
        demand(records and not any(zero), "a frame without records, or its zero is not zero")
        end = at + length
        demand(at + FRAME.size < end <= len(body), f"a frame of {length} bytes")
        headers.append(body[at:at + FRAME.size])
        at += FRAME.size
        for _ in range(records):
            demand(at < end, "a frame has fewer records than it says")
            event, record_end = read_record(body, at)
            headers.append(body[at:at + RECORD.size])
            events.append(event)
            at = record_end
        demand(at == end, "a frame is not filled by its records")
        frames += 1
    return events, b"".join(headers), frames


# The log (§3, §10, §11)

class Log:
    def __init__(self, folder):
        self.folder = folder
        try:
            with open(os.path.join(folder, "LOG"), encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise Nothing(f"{folder} is no log: {error}") from None
        found = re.fullmatch(r"quipu log\nlog_id: ([0-9a-fA-F-]{36})\nformat: (\d+)\n?", text)
        if not found:
            raise Nothing(f"{folder} is no log: its LOG is not three lines as they should be")
        if found[2] != "1":
            raise Nothing(f"a log of format {found[2]}, this reader knows 1")
        self.log_id = uuid.UUID(found[1]).bytes

    def path(self, number, kind):
        return os.path.join(self.folder, f"{number:020}.{kind}")

    def last_number(self):
        names = (re.fullmatch(r"(\d{20})\.seg", name) for name in os.listdir(self.folder))
        return max((int(name[1]) for name in names if name), default=0)

    def activated(self, number, seal):
        """The segment of that number, in its place after `seal`; None if never activated (§11)."""
        last, after = self.last_number(), f"segment {number}, offset 0: "
        if number > last and number > 1 and not seal:
            return None
        if not os.path.exists(self.path(number, "seg")):
            raise Damage(after + "the file is missing")
        segment = SegmentFile(self.path(number, "seg"))
        try:
            segment.read_header()
        except Invalid as why:
            if number == 1 or number < last or seal and segment.seems_used(seal.first_position):
                raise Damage(after + str(why)) from None
            return None
        try:
            segment.check_place(number, self.log_id, seal)
        except Invalid as why:
            raise Damage(after + str(why)) from None
        return segment

    def groups(self, number, segment):
        """The groups of a segment, as long as they are valid and continue it."""
        last = None
        while not last or last.kind != SEAL:
            end = last.end if last else BLOCK
            try:
                last = segment.next_group(last)
            except Invalid:
                if not self.activated(number + 1, None) and not segment.lacks_durable(end):
                    return
                # A running writer may have been faster: only what stands there now is damage.
                try:
                    last = segment.next_group(last)
                except Invalid as why:
                    raise Damage(f"segment {number}, offset {end}: {why}") from None
            yield last

    def events(self):
        """Every event that is proven durable (§10, rule 4)."""
        seal = None
        for number in itertools.count(1):
            segment = self.activated(number, seal)
            if not segment:
                return
            waiting, durable, group = collections.deque(), 0, None
            for group in self.groups(number, segment):
                waiting.append(group)
                durable = max(durable, group.durable_upto)
                while waiting and waiting[0].end <= durable:
                    yield from waiting.popleft().events
            if not group or group.kind not in (CLEAN, SEAL):
                return
            for rest in waiting:
                yield from rest.events
            if group.kind == CLEAN:
                return
            seal = group


# The JSON spelling

quoted = json.encoder.encode_basestring


def rfc3339(micros):
    seconds, fraction = divmod(micros, 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    eras, days = divmod(days, 146_097)
    date = datetime.date.fromordinal(719_163 + days)
    digits = f".{fraction:06}".rstrip("0") if fraction else ""
    return (f'"{date.year + 400 * eras:04}-{date.month:02}-{date.day:02}T{seconds // 3600:02}:'
            f'{seconds // 60 % 60:02}:{seconds % 60:02}{digits}Z"')


def json_line(event):
    (aggregate_type, aggregate_id, event_type, content_type, correlation_id, causation_id,
     *optional) = event.texts
    metadata = [f'"user_id":"{uuid.UUID(bytes=event.user_id)}"'] * (event.user_id != NIL)
    metadata += [f'"correlation_id":{quoted(correlation_id)}',
                 f'"causation_id":{quoted(causation_id)}']
    metadata += [f'"{name}":{quoted(text)}' for name, text
                 in zip(("ip_address", "user_agent", "traceparent"), optional) if text]
    is_json = content_type == "application/json"
    return b"".join([
        f'{{"id":"{uuid.UUID(bytes=event.event_id)}","aggregate_id":{quoted(aggregate_id)},'
        f'"aggregate_type":{quoted(aggregate_type)},"event_type":{quoted(event_type)},'
        f'"timestamp":{rfc3339(event.timestamp)},"version":{event.version},"metadata":{{'.encode(),
        ",".join(metadata).encode(), b',"custom":' * bool(event.custom), event.custom,
        b'},"data":' if is_json else b'},"data_base64":"',
        event.payload if is_json else base64.b64encode(event.payload) + b'"',
        f',"position":{event.position},"recorded_at":{rfc3339(event.recorded_at)},'
        f'"schema_version":{event.schema_version}'.encode(),
        b"" if is_json else f',"content_type":{quoted(content_type)}'.encode(), b"}\n"])


# The index file (§7)

def packed(layout, rows):
    return b"".join(struct.pack(layout, *row) for row in rows)


def index_sections(log, segment, groups):
    """What the sections of the segment's index must be, and its events' timestamps."""
    first = segment.header.first_position
    ids, correlations, places, streams, names, times = [], [], [], {}, set(), []
    for group, event in ((group, event) for group in groups for event in group.events):
        kind, name, event_type, _, correlation = (text.encode() for text in event.texts[:5])
        record = event.position - first
        ids.append((event.event_id, record))
        places.append(((group.offset + GROUP.size + event.offset) // 8, zlib.crc32(event.header)))
        if correlation:
            correlations.append((siphash13(log.log_id, correlation), record))
        version, records = streams.setdefault((kind, name), (event.version, []))
        demand(event.version == version + len(records), f"record {event.position}: its version")
        records.append(record)
        names |= {(0, kind), (1, event_type)}
        times.append(event.timestamp)
    aggregates = sorted((siphash13(log.log_id, kind + b"\0" + name), kind, name, *stream)
                        for (kind, name), stream in streams.items())
    key_ends = itertools.accumulate((len(row[1] + row[2]) for row in aggregates), initial=0)
    starts = itertools.accumulate((len(row[4]) for row in aggregates), initial=0)
    return times, {
        "groups": packed("<QII", ((group.first_position, group.offset // BLOCK,
                                   (group.end - group.offset) // BLOCK)
                                  for group in groups if group.kind == DATA)),
        "aggregates": packed("<QQIIIHH", (
            (hashed, version, len(records), start, key_at, len(kind), len(name))
            for (hashed, kind, name, version, records), start, key_at
            in zip(aggregates, starts, key_ends))),
        "ids": packed("<16sI", sorted(ids)),
        "correlations": packed("<QI", sorted(correlations)),
        "postings": packed("<I", ((record,) for row in aggregates for record in row[4])),
        "places": packed("<II", places),
        "names": b"".join(bytes((kind, len(name))) + name for kind, name in sorted(names)),
        "keys": b"".join(row[1] + row[2] for row in aggregates)}


def check_index(log, number):
    segment = SegmentFile(log.path(number, "seg"))
    segment.read_header()
    with open(log.path(number, "idx"), "rb") as file:
        data = file.read()
    demand(len(data) >= INDEX.size + 8, f"it has {len(data)} bytes")
    head = Index._make(INDEX.unpack_from(data))
    demand(head.magic == b"QUIPUIDX" and head.format == 2, "its magic or format is unknown")
    lengths = (16 * head.groups, 32 * head.aggregates, 20 * head.records, 12 * head.correlations,
               4 * head.records, 8 * head.records, head.name_bytes, head.key_bytes)
    content = INDEX.size + sum(lengths)
    blocks = [data[at:min(at + BLOCK, content)] for at in range(0, content, BLOCK)]
    demand(len(data) == content + 8 * len(blocks) + 8, f"it has {len(data)} bytes")
    demand(data[content:-8] == packed("<Q", ((crc64(block),) for block in blocks)),
           "the sum of a block does not match")
    demand(crc64(data[:INDEX.size] + data[content:-8]) == int.from_bytes(data[-8:], "little"),
           "its sum does not match")
    groups = list(log.groups(number, segment))
    demand(groups and groups[-1].kind == SEAL, "its segment is not sealed")
    demand((head.segment_id, head.seal_sum, head.first_position) == (
        segment.header.segment_id, groups[-1].sum, segment.header.first_position),
        "it is of another segment")
    times, sections = index_sections(log, segment, groups)
    demand(not times or (head.timestamp_min, head.timestamp_max) == (min(times), max(times)),
           "its least or greatest timestamp is wrong")
    last = next((group.events[-1].recorded_at for group in reversed(groups) if group.events), 0)
    demand(head.last_recorded_at == last, "last_recorded_at is wrong")
    demand(head.names_complete in (0, 1), f"names_complete is {head.names_complete}")
    start = INDEX.size
    for (name, content), length in zip(sections.items(), lengths):
        demand(data[start:start + length] == content or name == "names" and not head.names_complete,
               f"its section {name} is wrong")
        start += length
    names = ("names_complete", "first_position", "timestamp_min", "timestamp_max", "groups",
             "aggregates", "records", "correlations", "name_bytes", "key_bytes", "last_recorded_at")
    return {"segment": number, **{name: getattr(head, name) for name in names}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--all", action="store_true", help="print events of `$` types too")
    parser.add_argument("--index", metavar="N", type=int, help="check the index of segment N")
    arguments = parser.parse_args()
    try:
        log = Log(arguments.folder)
        if arguments.index is not None:
            print(json.dumps(check_index(log, arguments.index)))
            return 0
        for event in log.events():
            if arguments.all or not event.texts[0].startswith("$"):
                sys.stdout.buffer.write(json_line(event))
        return 0
    except Invalid as why:
        failure, code = f"index of segment {arguments.index}: {why}", 1
    except Damage as damage:
        failure, code = damage, 1
    except (Nothing, OSError) as error:
        failure, code = error, 3
    sys.stdout.flush()
    print(failure, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
