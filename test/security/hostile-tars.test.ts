// Tars of strangers who want more than to be unpacked. Each is refused by name or does no harm; nothing outside the store is touched, nothing of
// what was refused stays in it, and no descriptor is left open.

import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { type Layer, LayerStore, OverlayRootfs, runIsolated } from 'cloister';
import { describe, expect, onTestFinished, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { rootTar } from '../helpers/images.js';
import { emptyTree, keepTar } from '../helpers/kept-tar.js';
import { testNeeding } from '../helpers/lane.js';
import { archive, binary, directory, end, entry, file, hardLink, long, pax, record, sparse, symlink } from '../helpers/raw-tar.js';
import { differencesOf, snapshot } from '../helpers/snapshot.js';
import { temporary } from '../integration/trees.js';

const isRoot = process.geteuid?.() === 0;

/** A store, and beside it what nobody is to touch. */
async function arena() {
  const place = temporary({ 'outside/secret': 'nobody is to read this', 'outside/directory/kept': 'x' });
  const store = await LayerStore.open(join(place, 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  const outside = join(place, 'outside');
  const before = { outside: snapshot(outside), place: readdirSync(place), open: census(['descriptors']) };
  const harm = async (): Promise<string[]> => {
    const found = differencesOf(before.outside, snapshot(outside));
    if (readdirSync(place).join() !== before.place.join()) found.push(`beside the store: ${readdirSync(place).join()}`);
    await settled(() => leaks(before.open, census(['descriptors'])), { what: 'descriptors' });
    return found;
  };
  const left = (): string[] =>
    ['blobs/sha256', 'tars', 'layers', 'chains', 'images', 'names', 'partial', 'temp'].flatMap((kind) =>
      readdirSync(join(place, 'store', kind)).map((name) => `${kind}/${name}`),
    );
  return { store, outside, harm, left };
}

type Bytes = Buffer | readonly Buffer[];
type Cases = Readonly<Record<string, Bytes>>;

/** As `import` does it, but in this thread: an ordinary user's takes a process for each. */
function extracted(tar: Buffer): void {
  const place = temporary();
  writeFileSync(join(place, 'tar'), tar);
  mkdirSync(join(place, 'tree'));
  mkdirSync(join(place, 'beside'));
  try {
    const { tar: back } = keepTar(join(place, 'tar'), join(place, 'tree'), join(place, 'beside'), { sizeLimit: 2 ** 50, entryLimit: 10_000 });
    if (back) expect(back.equals(tar)).toBe(true);
  } finally {
    emptyTree(join(place, 'tree'));
  }
}

const toldAs = ({ code, message }: Error & { code?: string }, outside: string): string => `${code}: ${message.replaceAll(outside || '\0', 'OUTSIDE')}`;

/** Whole messages, by case; what is taken says so. All by the tar alone, and by the store as many as there is time for. */
async function refusals(make: (outside: string) => Cases): Promise<Record<string, string>> {
  const { store, outside, harm, left } = await arena();
  const told: Record<string, string> = {};
  for (const [index, [name, bytes]] of Object.entries(make(outside)).entries()) {
    const tar = Buffer.isBuffer(bytes) ? bytes : Buffer.concat(bytes);
    try {
      extracted(tar);
      told[name] = 'TAKEN';
    } catch (error) {
      told[name] = toldAs(error as Error, outside);
    }
    if (!isRoot && index >= 2) continue;
    const imported = await store.import(Readable.from([tar])).then(
      () => 'TAKEN',
      (error: Error) => toldAs(error, outside),
    );
    expect([name, imported, left()]).toEqual([name, told[name], []]);
  }
  expect(await harm()).toEqual([]);
  return told;
}

/** Through the store, which has the limit. */
async function refusedImports(cases: Cases, options: object): Promise<Record<string, string>> {
  const { store, outside, harm, left } = await arena();
  const told: Record<string, string> = {};
  for (const [name, bytes] of Object.entries(cases)) {
    told[name] = await store.import(Readable.from(Buffer.isBuffer(bytes) ? [bytes] : bytes), options).then(
      () => 'TAKEN',
      (error: Error) => toldAs(error, outside),
    );
    expect([name, left()]).toEqual([name, []]);
  }
  expect(await harm()).toEqual([]);
  return told;
}

async function taken(bytes: Bytes): Promise<{ layer: Layer; path: string; store: LayerStore }> {
  const { store, harm } = await arena();
  const layer = await store.import(Readable.from(Buffer.isBuffer(bytes) ? [bytes] : bytes));
  expect(await harm()).toEqual([]);
  return { layer, path: layer.path, store };
}

test('names that lead out', async () => {
  expect(
    await refusals((outside) => ({
      'dots first': archive(file('../outside/new', 'x')),
      'dots in the middle': archive(directory('a'), file('a/../../outside/new', 'x')),
      'dots last': archive(directory('a/..')),
      'dots alone': archive(directory('..')),
      'dots that stay inside': archive(directory('a'), file('a/../b', 'x')),
      absolute: archive(file(`${outside}/new`, 'x')),
      'absolute by the prefix': archive(file('new', 'x', { prefix: outside })),
      'absolute by PAX': archive(pax({ path: `${outside}/new` }), file('harmless', 'x')),
      'absolute by GNU': archive(long('L', `${outside}/new`), file('harmless', 'x')),
      'slashes alone': archive(directory('//')),
      'dots by PAX': archive(pax({ path: '../outside/new' }), file('harmless', 'x')),
      'dots by a sparse name': archive(pax({ 'GNU.sparse.name': '../outside/new', 'GNU.sparse.map': '0,1', 'GNU.sparse.size': '1' }), file('harmless', 'x')),
      'no name': archive(file('', 'x')),
      'a file as the root': archive(file('.', 'x')),
      'a symlink as the root': archive(symlink('./', outside)),
      'a NUL in the name': archive(pax({ path: 'a\0b' }), file('harmless', 'x')),
      'a part of 256 bytes': archive(pax({ path: 'n'.repeat(256) }), file('harmless', 'x')),
      'a name of 5000 bytes': archive(pax({ path: 'n/'.repeat(2500) }), file('harmless', 'x')),
      'a terminal sequence': archive(file('../\u001b]0;pwned\u0007\u009b31m', 'x')),
    })),
  ).toMatchInlineSnapshot(`
    {
      "a NUL in the name": "ERR_CLOISTER_LAYER: not taken as a layer: /a\\u0000b: its name has a NUL in it",
      "a file as the root": "ERR_CLOISTER_LAYER: not taken as a layer: /.: the root of a layer is a directory",
      "a name of 5000 bytes": "ERR_CLOISTER_LAYER: not taken as a layer: /n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n…/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n/n: it has a size, but a directory has no contents",
      "a part of 256 bytes": "ERR_CLOISTER_LAYER: not taken as a layer: /nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn: a part of its name has 256 bytes",
      "a symlink as the root": "ERR_CLOISTER_LAYER: not taken as a layer: /.: the root of a layer is a directory",
      "a terminal sequence": "ERR_CLOISTER_LAYER: not taken as a layer: /../\\u001b]0;pwned\\u0007\\u009b31m: it has '..' in its name",
      "absolute": "ERR_CLOISTER_LAYER: not taken as a layer: /OUTSIDE/new: its name is absolute",
      "absolute by GNU": "ERR_CLOISTER_LAYER: not taken as a layer: /OUTSIDE/new: its name is absolute",
      "absolute by PAX": "ERR_CLOISTER_LAYER: not taken as a layer: /OUTSIDE/new: its name is absolute",
      "absolute by the prefix": "ERR_CLOISTER_LAYER: not taken as a layer: /OUTSIDE/new: its name is absolute",
      "dots alone": "ERR_CLOISTER_LAYER: not taken as a layer: /..: it has '..' in its name",
      "dots by PAX": "ERR_CLOISTER_LAYER: not taken as a layer: /../outside/new: it has '..' in its name",
      "dots by a sparse name": "ERR_CLOISTER_LAYER: not taken as a layer: /../outside/new: it has '..' in its name",
      "dots first": "ERR_CLOISTER_LAYER: not taken as a layer: /../outside/new: it has '..' in its name",
      "dots in the middle": "ERR_CLOISTER_LAYER: not taken as a layer: /a/../../outside/new: it has '..' in its name",
      "dots last": "ERR_CLOISTER_LAYER: not taken as a layer: /a/..: it has '..' in its name",
      "dots that stay inside": "ERR_CLOISTER_LAYER: not taken as a layer: /a/../b: it has '..' in its name",
      "no name": "ERR_CLOISTER_LAYER: not taken as a layer: /: it has no name",
      "slashes alone": "ERR_CLOISTER_LAYER: not taken as a layer: //: its name is absolute",
    }
  `);
});

test('symlinks and hard links that lead out', async () => {
  expect(
    await refusals((outside) => ({
      'a file below a symlink': archive(symlink('link', outside), file('link/new', 'x')),
      'a file below a relative symlink': archive(symlink('link', '../../../../outside'), file('link/new', 'x')),
      'a directory below a symlink': archive(symlink('link', outside), directory('link/new')),
      'a whiteout below a symlink': archive(symlink('link', outside), file('link/.wh.secret')),
      'an opaque marker below a symlink': archive(symlink('link', outside), file('link/.wh..wh..opq')),
      'below two symlinks': archive(symlink('a', '.'), symlink('a2', 'a'), file('a2/a/new', 'x')),
      'below a hard link to a symlink': archive(symlink('link', outside), hardLink('again', 'link'), file('again/new', 'x')),
      'a hard link to a name below a symlink': archive(symlink('link', outside), hardLink('mine', 'link/secret')),
      'a hard link to an absolute name': archive(hardLink('mine', `${outside}/secret`)),
      'a hard link to an absolute name by PAX': archive(pax({ linkpath: `${outside}/secret` }), hardLink('mine', 'x')),
      'a hard link with dots': archive(hardLink('mine', '../../../../outside/secret')),
      'a hard link with dots by GNU': archive(long('K', '../outside/secret'), hardLink('mine', 'x')),
      'a hard link to a directory': archive(directory('a'), hardLink('mine', 'a')),
      'a hard link to the root': archive(hardLink('mine', '.')),
      'a hard link to nothing': archive(hardLink('mine', '')),
      'a hard link to what is not there': archive(hardLink('mine', 'a')),
      'a hard link to itself': archive(file('a', 'x'), hardLink('a', 'a')),
      'a hard link to a whiteout': archive(file('.wh.a'), hardLink('mine', 'a')),
      'a hard link to a NUL': archive(pax({ linkpath: 'a\0b' }), hardLink('mine', 'x')),
      'a hard link with contents': archive(file('a', 'x'), hardLink('b', 'a', { content: 'y' })),
      'below a fifo': archive(entry({ name: 'pipe', type: '6' }), file('pipe/new', 'x')),
      'below a file': archive(file('a', 'x'), file('a/b', 'x')),
      'an empty symlink': archive(symlink('link', '')),
      'a symlink of 5000 bytes': archive(pax({ linkpath: 'n'.repeat(5000) }), symlink('link', 'x')),
    })),
  ).toMatchInlineSnapshot(`
    {
      "a directory below a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /link/new: it leads through a symlink that is in the same tar",
      "a file below a relative symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /link/new: it leads through a symlink that is in the same tar",
      "a file below a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /link/new: it leads through a symlink that is in the same tar",
      "a hard link to a NUL": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: the name that it links to has a NUL in it",
      "a hard link to a directory": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to a directory",
      "a hard link to a name below a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to what is not in this layer",
      "a hard link to a whiteout": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to what is not in this layer",
      "a hard link to an absolute name": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to an absolute name",
      "a hard link to an absolute name by PAX": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to an absolute name",
      "a hard link to itself": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is a hard link to what is not in this layer",
      "a hard link to nothing": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to nothing",
      "a hard link to the root": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to what is not in this layer",
      "a hard link to what is not there": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to what is not in this layer",
      "a hard link with contents": "ERR_CLOISTER_LAYER: not taken as a layer: this is no tar, or it is damaged: a header has a wrong checksum",
      "a hard link with dots": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to a name with '..'",
      "a hard link with dots by GNU": "ERR_CLOISTER_LAYER: not taken as a layer: /mine: it is a hard link to a name with '..'",
      "a symlink of 5000 bytes": "ERR_CLOISTER_LAYER: not taken as a layer: /link: it is a symlink to nothing, or to too long a name",
      "a whiteout below a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /link/.wh.secret: it leads through a symlink that is in the same tar",
      "an empty symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /link: it is a symlink to nothing, or to too long a name",
      "an opaque marker below a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /link/.wh..wh..opq: it leads through a symlink that is in the same tar",
      "below a fifo": "ERR_CLOISTER_LAYER: not taken as a layer: /pipe/new: it leads through a fifo that is in the same tar",
      "below a file": "ERR_CLOISTER_LAYER: not taken as a layer: /a/b: it leads through a file that is in the same tar",
      "below a hard link to a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /again/new: it leads through a symlink that is in the same tar",
      "below two symlinks": "ERR_CLOISTER_LAYER: not taken as a layer: /a2/a/new: it leads through a symlink that is in the same tar",
    }
  `);
});

test('whiteouts where there is nothing to hide', async () => {
  expect(
    await refusals(() => ({
      'of nothing': archive(file('.wh.')),
      'of the directory': archive(file('.wh..')),
      'of the directory above': archive(file('.wh...')),
      'outside, by dots': archive(file('../.wh.outside')),
      'opaque, outside': archive(file('../.wh..wh..opq')),
      'as a directory': archive(directory('.wh.a')),
      'as a symlink': archive(symlink('.wh.a', 'x')),
      'with contents': archive(file('.wh.a', 'x')),
      'with something below': archive(file('.wh.a/b', 'x')),
      'opaque, with something below': archive(file('a/.wh..wh..opq/b', 'x')),
      "overlayfs's own": archive(entry({ name: 'a', type: '3' })),
      "overlayfs's own opaque directory": archive(pax({ 'SCHILY.xattr.trusted.overlay.opaque': 'y' }), directory('a')),
      "a user's opaque directory": archive(pax({ 'SCHILY.xattr.user.overlay.opaque': 'y' }), directory('a')),
      'a redirect': archive(pax({ 'SCHILY.xattr.trusted.overlay.redirect': '/etc' }), directory('a')),
      'a metacopy, spelled with %': archive(pax({ 'SCHILY.xattr.trusted.%25overlay': '', 'SCHILY.xattr.user.overlay.metacopy': '' }), file('a')),
      'a forged owner': archive(pax({ 'SCHILY.xattr.user.cloister.owner': '0:0' }), file('a')),
    })),
  ).toMatchInlineSnapshot(`
    {
      "a forged owner": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has the extended attribute "user.cloister.owner", which is not a file's own",
      "a metacopy, spelled with %": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has the extended attribute "user.overlay.metacopy", which is not a file's own",
      "a redirect": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has the extended attribute "trusted.overlay.redirect", which is not a file's own",
      "a user's opaque directory": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has the extended attribute "user.overlay.opaque", which is not a file's own",
      "as a directory": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh.a: a whiteout is an empty file",
      "as a symlink": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh.a: a whiteout is an empty file",
      "of nothing": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh.: it hides nothing that there can be",
      "of the directory": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh..: it hides nothing that there can be",
      "of the directory above": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh...: it hides nothing that there can be",
      "opaque, outside": "ERR_CLOISTER_LAYER: not taken as a layer: /../.wh..wh..opq: it has '..' in its name",
      "opaque, with something below": "ERR_CLOISTER_LAYER: not taken as a layer: /a/.wh..wh..opq/b: a whiteout is no directory",
      "outside, by dots": "ERR_CLOISTER_LAYER: not taken as a layer: /../.wh.outside: it has '..' in its name",
      "overlayfs's own": "ERR_CLOISTER_LAYER: not taken as a layer: /a: a device 0:0 is overlayfs's own whiteout",
      "overlayfs's own opaque directory": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has the extended attribute "trusted.overlay.opaque", which is not a file's own",
      "with contents": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh.a: a whiteout is an empty file",
      "with something below": "ERR_CLOISTER_LAYER: not taken as a layer: /.wh.a/b: a whiteout is no directory",
    }
  `);
});

test('numbers that cannot be', async () => {
  expect(
    await refusals(() => ({
      'a size below zero': archive(file('a', '', { size: binary(-1n, 12) })),
      'a size below zero, of an extended header': archive(entry({ type: 'x', size: binary(-512n, 12) }), file('a')),
      'a size of 2^63': archive(file('a', '', { size: binary(2n ** 63n, 12) })),
      'a size of 8 EiB, by PAX': archive(pax({ size: '9223372036854775807' }), file('a')),
      'a size below zero, by PAX': archive(pax({ size: '-1' }), file('a')),
      'a size with letters': archive(file('a', '', { size: '0000000zz' })),
      'a size in hexadecimal, by PAX': archive(pax({ size: '0x10' }), file('a', 'x'.repeat(16))),
      'a size of 4 GiB that is not there': archive(file('a', 'x', { size: 2 ** 32 })),
      'a size that lies': [file('a', 'x', { size: 5000 })],
      'a directory with a size': archive(directory('a', { size: 512 }), Buffer.alloc(512, 'x')),
      'a directory with a size, by its name': archive(entry({ name: 'a/', content: 'x' })),
      'a symlink with a size': archive(symlink('a', 'b', { content: 'x' })),
      'a fifo with a size': archive(entry({ name: 'a', type: '6', content: 'x' })),
      'an owner below zero': archive(file('a', '', { uid: binary(-1n, 8) })),
      'the owner that is nobody': archive(pax({ uid: '4294967295' }), file('a')),
      'a group of 2^40': archive(pax({ gid: String(2 ** 40) }), file('a')),
      'a mode with letters': archive(file('a', '', { mode: 'rwxr-xr' })),
      'a time that is none': archive(pax({ mtime: 'yesterday' }), file('a')),
      'a time of 10^20': archive(pax({ mtime: '100000000000000000000' }), file('a')),
      'a device below zero': archive(entry({ name: 'a', type: '4', major: binary(-1n, 8) })),
      'a device that is too large': archive(entry({ name: 'a', type: '3', major: 1, minor: binary(2n ** 21n, 8) })),
    })),
  ).toMatchInlineSnapshot(`
    {
      "a device below zero": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is a device that Linux cannot have",
      "a device that is too large": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is a device that Linux cannot have",
      "a directory with a size": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has a size, but a directory has no contents",
      "a directory with a size, by its name": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has a size, but a directory has no contents",
      "a fifo with a size": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has a size, but a fifo has no contents",
      "a group of 2^40": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its gid is 1099511627776",
      "a mode with letters": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its mode is no number",
      "a size below zero": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is below zero",
      "a size below zero, by PAX": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is no number",
      "a size below zero, of an extended header": "ERR_CLOISTER_LAYER: not taken as a layer: extended headers of -512 bytes before one entry",
      "a size in hexadecimal, by PAX": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is no number",
      "a size of 2^63": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is too large",
      "a size of 4 GiB that is not there": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short in the middle of a file",
      "a size of 8 EiB, by PAX": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is too large",
      "a size that lies": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short in the middle of a file",
      "a size with letters": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is no number",
      "a symlink with a size": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it has a size, but a symlink has no contents",
      "a time of 10^20": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its mtime is no time",
      "a time that is none": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its mtime is no time",
      "an owner below zero": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its uid is -1",
      "the owner that is nobody": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its uid is 4294967295",
    }
  `);
});

test('headers that are broken', async () => {
  const mebibytes = (count: number): Buffer => Buffer.alloc(count * 2 ** 20, 'x');
  expect(
    await refusals(() => ({
      'no tar': Buffer.alloc(2048, 'this is a text '),
      nothing: Buffer.alloc(0),
      'one byte': Buffer.from('x'),
      'a wrong checksum': archive(file('a', 'x', { checksum: '0000000\0' })),
      'a checksum with letters': archive(file('a', 'x', { checksum: 'abcdefg\0' })),
      'something behind a block of zeros': Buffer.concat([file('a'), Buffer.alloc(512), file('b'), end]),
      'no end': file('a', 'x'),
      'half a block of zeros': Buffer.concat([file('a'), Buffer.alloc(100)]),
      'a kind of nobody': archive(entry({ name: 'a', type: '~' })),
      'a part of another volume': archive(entry({ name: 'a', type: 'M' })),
      'PAX without a length': archive(pax(Buffer.from('path=a\n')), file('a')),
      'PAX with a length beyond its end': archive(pax(Buffer.from('99 path=a\n')), file('a')),
      'PAX with a length of zero': archive(pax(Buffer.from('0 path=a\n')), file('a')),
      'PAX with a length that ends too early': archive(pax(Buffer.from('8 path=abc\n')), file('a')),
      'PAX with a length of twenty digits': archive(pax(Buffer.from(`${'9'.repeat(20)} path=a\n`)), file('a')),
      'PAX without a keyword': archive(pax(Buffer.from('5 =a\n')), file('a')),
      'PAX without an equals sign': archive(pax(Buffer.from('7 path\n')), file('a')),
      'PAX for nobody': archive(pax({ path: 'a' })),
      'PAX of 5 MiB': archive(pax({ comment: mebibytes(5) }), file('a')),
      'PAX of 3 MiB, twice': archive(pax({ comment: mebibytes(3) }), pax({ comment: mebibytes(3) }), file('a')),
      'PAX that is cut short': pax({ comment: mebibytes(1) }).subarray(0, 5000),
      'a name of 10 MB': archive(long('L', Buffer.alloc(10_000_000, 'n')), file('a')),
      'a name for nobody': archive(long('L', 'a')),
      'a name for all that follow': archive(pax({ path: 'a' }, 'g'), file('b')),
      'a size for all that follow': archive(pax({ size: '1' }, 'g'), file('b')),
      'an attribute for all that follow': archive(pax({ 'SCHILY.xattr.user.a': '1' }, 'g'), file('b')),
      'a keyword that would end a line': archive(pax({ 'SCHILY.xattr.user.\u001b[2J\n': '1', 'SCHILY.xattr.user.overlay.\u001b[2J': '1' }), file('b')),
    })),
  ).toMatchInlineSnapshot(`
    {
      "PAX for nobody": "ERR_CLOISTER_LAYER: not taken as a layer: the tar ends where the entry of an extended header should be",
      "PAX of 3 MiB, twice": "ERR_CLOISTER_LAYER: not taken as a layer: extended headers of 6291490 bytes before one entry",
      "PAX of 5 MiB": "ERR_CLOISTER_LAYER: not taken as a layer: extended headers of 5242897 bytes before one entry",
      "PAX that is cut short": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short in an extended header",
      "PAX with a length beyond its end": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has a wrong length",
      "PAX with a length of twenty digits": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has no length",
      "PAX with a length of zero": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has no length",
      "PAX with a length that ends too early": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has a wrong length",
      "PAX without a keyword": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has no keyword",
      "PAX without a length": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has no length",
      "PAX without an equals sign": "ERR_CLOISTER_LAYER: not taken as a layer: a PAX record has no keyword",
      "a checksum with letters": "ERR_CLOISTER_LAYER: not taken as a layer: this is no tar, or it is damaged: a header has a wrong checksum",
      "a keyword that would end a line": "ERR_CLOISTER_LAYER: not taken as a layer: /b: it has the extended attribute "user.overlay.\\u001b[2J", which is not a file's own",
      "a kind of nobody": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is of a kind ("~") that a layer does not have",
      "a name for all that follow": "ERR_CLOISTER_LAYER: not taken as a layer: a global header sets "path" for all entries",
      "a name for nobody": "ERR_CLOISTER_LAYER: not taken as a layer: the tar ends where the entry of an extended header should be",
      "a name of 10 MB": "ERR_CLOISTER_LAYER: not taken as a layer: extended headers of 10000001 bytes before one entry",
      "a part of another volume": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is of a kind ("M") that a layer does not have",
      "a size for all that follow": "ERR_CLOISTER_LAYER: not taken as a layer: a global header sets "size" for all entries",
      "a wrong checksum": "ERR_CLOISTER_LAYER: not taken as a layer: this is no tar, or it is damaged: a header has a wrong checksum",
      "an attribute for all that follow": "ERR_CLOISTER_LAYER: not taken as a layer: a global header sets "SCHILY.xattr.user.a" for all entries",
      "half a block of zeros": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short: there is no end of it
      A tar ends with two blocks of zeros.",
      "no end": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short: there is no end of it
      A tar ends with two blocks of zeros.",
      "no tar": "ERR_CLOISTER_LAYER: not taken as a layer: this is no tar, or it is damaged: a header has a wrong checksum",
      "nothing": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short: there is no end of it
      A tar ends with two blocks of zeros.",
      "one byte": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short: there is no end of it
      A tar ends with two blocks of zeros.",
      "something behind a block of zeros": "ERR_CLOISTER_LAYER: not taken as a layer: the tar goes on behind a block of zeros",
    }
  `);
});

test('sparse files that are none', async () => {
  const map = (text: string, size = '100', more: Record<string, string> = {}): Buffer =>
    archive(pax({ 'GNU.sparse.map': text, 'GNU.sparse.size': size, ...more }), file('a', 'xxxx'));
  const inContents = (text: string, size = '100'): Buffer =>
    archive(pax({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': size }), file('a', Buffer.from(text)));
  expect(
    await refusals(() => ({
      'parts that overlap': map('0,3,2,1'),
      'parts behind the end': map('98,4'),
      'parts that are out of order': map('10,2,0,2'),
      'more than is stored': map('0,50'),
      'less than is stored': map('0,1'),
      'half a pair': map('0,4,5'),
      'a map with letters': map('0,x'),
      'an empty map': map(','),
      'no size': archive(pax({ 'GNU.sparse.map': '0,4' }), file('a', 'xxxx')),
      'a size of 10^19': map('0,4', '10000000000000000000'),
      'a version that is not known': map('0,4', '100', { 'GNU.sparse.major': '7' }),
      'offsets without lengths': archive(
        pax(Buffer.concat([record('GNU.sparse.offset', '0'), record('GNU.sparse.offset', '1'), record('GNU.sparse.numbytes', '1')])),
        file('a', 'xxxx'),
      ),
      'a map of two million parts': inContents(`2000000\n${'0\n'.repeat(100)}`),
      'a map that does not end': inContents('5\n0\n1\n'),
      'a map without lines': inContents('1'.repeat(600)),
      'GNU: parts behind the end': archive(sparse('a', 10, [[8, 4]], Buffer.from('xxxx'))),
      'GNU: an offset below zero': archive(sparse('a', 10, [[binary(-4n, 12), 4]], Buffer.from('xxxx'))),
      'GNU: a size below zero': archive(sparse('a', binary(-1n, 12), [], Buffer.alloc(0))),
      'GNU: a map that goes on behind the end': sparse('a', 10, [[0, 4]], Buffer.alloc(0), true),
    })),
  ).toMatchInlineSnapshot(`
    {
      "GNU: a map that goes on behind the end": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the tar is cut short",
      "GNU: a size below zero": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the map of a sparse file is broken",
      "GNU: an offset below zero": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file overlap, or lie behind its end",
      "GNU: parts behind the end": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file overlap, or lie behind its end",
      "a map of two million parts": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the map of a sparse file is broken",
      "a map that does not end": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the map of a sparse file is broken",
      "a map with letters": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its map is no number",
      "a map without lines": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the map of a sparse file is broken",
      "a size of 10^19": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its size is too large",
      "a version that is not known": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is sparse in a way that is not known ("7", undefined)",
      "an empty map": "ERR_CLOISTER_LAYER: not taken as a layer: /a: its map is no number",
      "half a pair": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the map of a sparse file is broken",
      "less than is stored": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file are not what is stored of it",
      "more than is stored": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file are not what is stored of it",
      "no size": "ERR_CLOISTER_LAYER: not taken as a layer: /a: it is sparse, and its size is not told",
      "offsets without lengths": "ERR_CLOISTER_LAYER: not taken as a layer: the map of a sparse file is incomplete",
      "parts behind the end": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file overlap, or lie behind its end",
      "parts that are out of order": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file overlap, or lie behind its end",
      "parts that overlap": "ERR_CLOISTER_LAYER: not taken as a layer: /a: the parts of a sparse file overlap, or lie behind its end",
    }
  `);
});

test('bombs', async () => {
  const zeros = gzipSync(Buffer.alloc(2 ** 26));
  expect(
    await refusedImports(
      {
        'gzip: 64 MiB of 64 KiB': zeros,
        'gzip: of many members': Array.from({ length: 8 }, () => gzipSync(file('a', Buffer.alloc(2 ** 19)))),
        'gzip: a header that never ends': [Buffer.from([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3]), ...Array.from({ length: 64 }, () => Buffer.alloc(2 ** 18, 'n'))],
        'gzip in gzip': gzipSync(zeros),
        'a file of 8 TiB, all holes': archive(pax({ 'GNU.sparse.map': '0,0', 'GNU.sparse.size': String(2 ** 43) }), file('a')),
        'a file of 1 TiB, all holes, as GNU has it': archive(sparse('a', binary(2n ** 40n, 12), [], Buffer.alloc(0))),
        'a thousand files of 2 KB': archive(...Array.from({ length: 1000 }, (_, index) => file(`f${index}`, Buffer.alloc(2000, 'x')))),
        'files that replace each other': archive(...Array.from({ length: 1000 }, () => file('f', Buffer.alloc(2000, 'x')))),
      },
      { sizeLimit: '1M' },
    ),
  ).toMatchInlineSnapshot(`
    {
      "a file of 1 TiB, all holes, as GNU has it": "ERR_CLOISTER_LAYER: not taken as a layer: /a: with it the layer has more than 1048576 bytes",
      "a file of 8 TiB, all holes": "ERR_CLOISTER_LAYER: not taken as a layer: /a: with it the layer has more than 1048576 bytes",
      "a thousand files of 2 KB": "ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed",
      "files that replace each other": "ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed",
      "gzip in gzip": "ERR_CLOISTER_LAYER: not taken as a layer: this is no tar, or it is damaged: a header has a wrong checksum",
      "gzip: 64 MiB of 64 KiB": "ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed",
      "gzip: a header that never ends": "ERR_CLOISTER_LAYER: a layer's gzip stream is broken: unexpected end of file",
      "gzip: of many members": "ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed",
    }
  `);
});

// Blocks of zstd that are one byte many times (RFC 8878, 3.1.1.2.2): four bytes are 128 KiB.
function zstdOf(frame: { readonly windowLog: number; readonly blocks: number }): Buffer {
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, (frame.windowLog - 10) << 3]);
  const block = (last: boolean): Buffer => {
    const word = ((2 ** 17) << 3) | (1 << 1) | Number(last);
    return Buffer.from([word & 0xff, (word >> 8) & 0xff, word >> 16, 0]);
  };
  return Buffer.concat([head, ...Array.from({ length: frame.blocks }, (_, index) => block(index === frame.blocks - 1))]);
}

test('bombs of zstd', async () => {
  const before = process.memoryUsage.rss();
  expect(
    await refusedImports(
      {
        '2 GiB of 64 KiB': zstdOf({ windowLog: 20, blocks: 2 ** 14 }),
        '8 GiB in one piece': zstdOf({ windowLog: 17, blocks: 2 ** 16 }),
        'a window of 2 GiB': zstdOf({ windowLog: 31, blocks: 2 ** 14 }),
        'a window of 2 TiB': zstdOf({ windowLog: 41, blocks: 10 }),
        'a skippable frame of 4 GiB': Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0]),
        'a frame that is cut in its head': Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0]),
        'a frame without blocks': Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 4]),
        'no second frame': Buffer.concat([zstdOf({ windowLog: 17, blocks: 1 }), Buffer.alloc(100, 'x')]),
      },
      { sizeLimit: '1M' },
    ),
  ).toMatchInlineSnapshot(`
    {
      "2 GiB of 64 KiB": "ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed",
      "8 GiB in one piece": "ERR_CLOISTER_LAYER: the layer is bigger than sizeLimit: more than 1048576 bytes uncompressed",
      "a frame that is cut in its head": "ERR_CLOISTER_LAYER: a layer's zstd stream is broken: it is cut short",
      "a frame without blocks": "ERR_CLOISTER_LAYER: a layer's zstd stream is broken: it is cut short",
      "a skippable frame of 4 GiB": "ERR_CLOISTER_LAYER: a layer's zstd stream is broken: it is cut short",
      "a window of 2 GiB": "ERR_CLOISTER_LAYER: the layer's zstd stream needs a window of 2147483648 bytes; the most that is taken here is 8388608
      Node.js 22.15 and later take 128 MiB. Levels up to 19 of zstd, without '--long', need no more than 8.",
      "a window of 2 TiB": "ERR_CLOISTER_LAYER: the layer's zstd stream needs a window of 2199023255552 bytes; the most that is taken here is 8388608
      Node.js 22.15 and later take 128 MiB. Levels up to 19 of zstd, without '--long', need no more than 8.",
      "no second frame": "ERR_CLOISTER_LAYER: a layer's zstd stream is broken: something else follows a frame",
    }
  `);
  expect(process.memoryUsage.rss() - before).toBeLessThan(200 * 2 ** 20);
});

test('a tar that is cut anywhere', async () => {
  const whole = archive(
    directory('d'),
    file('d/file', 'x'.repeat(700)),
    pax({ path: `d/${'long'.repeat(50)}`, 'SCHILY.xattr.user.a': 'b' }),
    file('x', 'contents'),
    long('L', `d/${'other'.repeat(40)}`),
    long('K', 'd/file'),
    hardLink('x', 'x'),
    symlink('s', '/etc/passwd'),
    pax({ 'GNU.sparse.map': '5,2,90,3', 'GNU.sparse.size': '100' }),
    file('sparse', 'ABCDE'),
    sparse('gnu', 2000, [[1000, 3]], Buffer.from('abc')),
    file('.wh.gone'),
  );
  // The blocks of zeros at the end are the only part that may be missing without a trace: all but one byte more than the first one.
  const { store, harm, left } = await arena();
  const kinds = new Map<string, number>();
  const refuse = (length: number): void => {
    let told = 'TAKEN';
    try {
      extracted(whole.subarray(0, length));
    } catch (error) {
      told = toldAs(error as Error, '');
    }
    kinds.set(told, (kinds.get(told) ?? 0) + 1);
  };
  const last = whole.length - 1024;
  for (let length = 0; length <= last; length += 512) for (const cut of [length, length + 1, length + 300]) if (cut < last + 512) refuse(cut);
  for (const length of [100, 3000, last]) {
    await expect(store.import(Readable.from([whole.subarray(0, length)]))).rejects.toMatchObject({ code: 'ERR_CLOISTER_LAYER' });
    expect([length, left()]).toEqual([length, []]);
  }
  expect(Object.fromEntries([...kinds].sort())).toMatchInlineSnapshot(`
    {
      "ERR_CLOISTER_LAYER: not taken as a layer: the tar ends where the entry of an extended header should be": 12,
      "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short": 8,
      "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short in an extended header": 8,
      "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short in the middle of a file": 11,
      "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short: there is no end of it
      A tar ends with two blocks of zeros.": 27,
    }
  `);
  expect(await harm()).toEqual([]);
});

describe('what is taken does no harm', () => {
  test('a symlink is a name and nothing more', async () => {
    const { store, outside, harm } = await arena();
    const links = archive(
      symlink('absolute', `${outside}/secret`),
      symlink('relative', '../../../../outside/secret'),
      symlink('directory', outside),
      // In its place comes a directory: what is below is the layer's own.
      directory('directory'),
      file('directory/secret', 'mine'),
      // What had the name before is replaced, and not written through.
      symlink('target', `${outside}/secret`),
      file('target', 'mine'),
      hardLink('second', 'absolute'),
    );
    const { path } = await store.import(Readable.from([links]));
    expect(await harm()).toEqual([]);
    expect([readlinkSync(join(path, 'absolute')), readlinkSync(join(path, 'second'))]).toEqual(Array(2).fill(`${outside}/secret`));
    expect(['directory/secret', 'target'].map((name) => [lstatSync(join(path, name)).isFile(), readFileSync(join(path, name), 'utf8')])).toEqual([
      [true, 'mine'],
      [true, 'mine'],
    ]);
    expect(await store.verify()).toMatchObject({ ok: true });
  });

  test('of entries with one name the last counts, whatever they are', async () => {
    const { path, store } = await taken(
      archive(
        file('a', 'first'),
        hardLink('linked', 'a'),
        file('a', 'second'),
        directory('d'),
        file('d/below', 'x'),
        file('d', 'a file now'),
        file('f', 'x'),
        directory('f'),
        file('f/below', 'y'),
        file('gone'),
        file('.wh.gone'),
        file('.wh.back'),
        file('back', 'here'),
        file('.wh.dir'),
        directory('dir'),
        file('dir/new', 'x'),
      ),
    );
    const text = (name: string): string => readFileSync(join(path, name), 'utf8');
    expect(['a', 'linked', 'd', 'f/below', 'gone', 'back', 'dir/new'].map(text)).toEqual(['second', 'first', 'a file now', 'y', '', 'here', 'x']);
    expect(await store.verify()).toMatchObject({ ok: true });
  });

  test('names that differ in case, or in how they are composed, are different ones', async () => {
    const names = ['File', 'file', 'FILE', 'dir/x', 'DIR/x', '\u00e9', 'e\u0301'];
    const { path } = await taken(archive(...names.map((name) => file(name, name))));
    expect(names.map((name) => readFileSync(join(path, name), 'utf8'))).toEqual(names);
    expect(readdirSync(path)).toHaveLength(7);
  });

  test('names of any bytes are names, and what they are called in a message is harmless', async () => {
    const odd = [Buffer.from([0xff, 0xfe, 0x01]), Buffer.from('new\nline'), Buffer.from('\u001b[31m'), Buffer.from('-rf'), Buffer.from(' ')];
    const { path } = await taken(archive(...odd.map((name) => file(name, 'x'))));
    const found = readdirSync(path, { encoding: 'buffer' }) as unknown as Buffer[];
    expect(found.sort(Buffer.compare)).toEqual([...odd].sort(Buffer.compare));
  });

  test('a path of 200 levels, and names of 3600 bytes, is made, and taken away again', async () => {
    const { store, left } = await arena();
    const deep = `${'directory-of-some/'.repeat(200)}f`;
    const layer = await store.import(Readable.from([archive(pax({ path: deep }), file('x', 'down here'))]));
    expect(layer.sizeBytes).toBeGreaterThan(0);
    expect(await store.verify()).toMatchObject({ ok: true });
    await store.remove(layer);
    await store.gc();
    expect(left()).toEqual([]);
  });

  test('a file of holes takes no room, and is read and told as it is', async () => {
    const { path, store, layer } = await taken(
      archive(pax({ 'GNU.sparse.map': '0,0', 'GNU.sparse.size': String(2 ** 26) }), file('holes'), sparse('gnu', 2 ** 26, [[2 ** 25, 3]], Buffer.from('abc'))),
    );
    for (const name of ['holes', 'gnu'])
      expect([name, statSync(join(path, name)).size, statSync(join(path, name)).blocks < 100]).toEqual([name, 2 ** 26, true]);
    expect(layer.sizeBytes).toBeLessThan(10_000);
    expect(await store.verify()).toMatchObject({ ok: true });
  });

  test('set-id programs, file capabilities and devices are only of use inside', async () => {
    // cap_setuid=ep, VFS_CAP_REVISION_2: linux/capability.h.
    const capability = Buffer.from('0100000280000000000000000000000000000000', 'hex');
    const { store, harm } = await arena();
    const layer = await store.import(
      Readable.from([
        archive(
          file('setuid', 'x', { mode: 0o6755, uid: 0 }),
          file('other', 'x', { mode: 0o4755, uid: 1000, gid: 1000 }),
          pax({ 'SCHILY.xattr.security.capability': capability }),
          file('capable', 'x', { mode: 0o755 }),
          entry({ name: 'null', type: '3', mode: 0o666, major: 1, minor: 3 }),
          entry({ name: 'disk', type: '4', mode: 0o666, major: 8, minor: 0 }),
        ),
      ]),
    );
    expect(await harm()).toEqual([]);
    // Whoever is not its owner cannot get at any of it.
    expect(statSync(join(layer.path, '../../..')).mode & 0o777).toBe(0o700);
    const owner = process.geteuid?.();
    expect(statSync(join(layer.path, 'setuid')).uid).toBe(owner);
    expect(statSync(join(layer.path, 'other')).uid).toBe(isRoot ? 1000 : owner);
    const record = JSON.parse(readFileSync(join(layer.path, '../layer.json'), 'utf8'));
    expect({ owners: record.owners, skipped: record.skipped }).toEqual(
      isRoot ? { owners: 'kept', skipped: [] } : { owners: 'recorded', skipped: ['/null', '/disk'] },
    );
    expect(existsSync(join(layer.path, 'disk'))).toBe(isRoot);
    expect(await store.verify()).toMatchObject({ ok: true });
  });

  testNeeding(['root', 'overlay'])('a device of a layer cannot be opened inside', async () => {
    const { store } = await arena();
    const base = await store.import(rootTar());
    const devices = await store.import(Readable.from([archive(entry({ name: 'zero', type: '3', mode: 0o666, major: 1, minor: 5 }))]), { parent: base });
    await using root = await OverlayRootfs.create({ layers: [base, devices] });
    const { stdout } = await runIsolated('/bin/probe', ['read', '/zero'], { rootfs: root });
    expect(stdout).toContain('EACCES');
  });

  testNeeding(['overlay'])('a layer that hides all that is below it does so', async () => {
    const { store } = await arena();
    const below = await store.import(Readable.from([archive(file('hidden', 'x'), file('d/hidden', 'x'))]));
    const base = await store.import(rootTar());
    const opaque = await store.import(Readable.from([archive(file('.wh..wh..opq'), file('d/seen', 'x'))]));
    await using all = await OverlayRootfs.create({ layers: [below, opaque, base] });
    const { stdout } = await runIsolated('/bin/probe', ['ls', '/', '--', 'ls', '/d'], { rootfs: all });
    expect(
      stdout
        .split('\n')
        .slice(0, 2)
        .map((line) => JSON.parse(line).entries.sort()),
    ).toEqual([expect.not.arrayContaining(['hidden']), ['seen']]);
    // With nothing of a program left, there is none to run.
    await using none = await OverlayRootfs.create({ layers: [base, opaque] });
    await expect(runIsolated('/bin/probe', ['ls', '/'], { rootfs: none })).rejects.toMatchObject({ errnoName: 'ENOENT' });
  });
});

test('directories in each other, more than could be read again', async () => {
  expect(
    await refusals(() => ({
      'a directory': archive(pax({ path: 'd/'.repeat(201) }), directory('x')),
      'above a file': archive(pax({ path: `${'d/'.repeat(2000)}f` }), file('x', '')),
    })),
  ).toMatchInlineSnapshot(`
    {
      "a directory": "ERR_CLOISTER_LAYER: not taken as a layer: /d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d…/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d: more than 200 directories are in each other",
      "above a file": "ERR_CLOISTER_LAYER: not taken as a layer: /d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d…/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/f: more than 200 directories are in each other",
    }
  `);
});

test('a few names that make more directories than a layer may have entries', async () => {
  const place = temporary({ 'tree/': '', 'beside/': '' });
  const deep = (index: number): Buffer => long('L', `${index}/${'d/'.repeat(190)}f`);
  writeFileSync(join(place, 'tar'), archive(...Array.from({ length: 30 }, (_, index) => Buffer.concat([deep(index), file('x')]))));
  const limits = { sizeLimit: 2 ** 30, entryLimit: 5000 };
  expect(() => keepTar(join(place, 'tar'), join(place, 'tree'), join(place, 'beside'), limits)).toThrow(/more than 5000 entries/);
  emptyTree(join(place, 'tree'));
});

test('directories that keep their owner out are filled all the same, and are so at the end', async () => {
  const tar = archive(directory('a', { mode: 0o555 }), directory('a/b', { mode: 0 }), file('a/b/c', 'x', { mode: 0 }), directory('d', { mode: 0o6500 }));
  extracted(tar);
  const { store, left } = await arena();
  const { path } = await store.import(Readable.from([tar]));
  expect(['a', 'd'].map((name) => (statSync(join(path, name)).mode & 0o7777).toString(8))).toEqual(['555', '6500']);
  expect((statSync(join(path, 'a/b')).mode & 0o7777).toString(8)).toBe('0');
  await store.gc();
  expect(left()).toEqual([]);
});
