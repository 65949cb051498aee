// Layouts and archives of strangers: manifests, configurations and indexes that lie. Each is refused by name, nothing of it stays in the store, and
// nothing but it has been looked at.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { LayerStore, runIsolated } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { sha256 } from '../helpers/images.js';
import { testNeeding } from '../helpers/lane.js';
import { archive, directory, file, symlink } from '../helpers/raw-tar.js';
import { temporary } from '../integration/trees.js';

type Json = Record<string, unknown>;
type Edit<T> = (value: T) => unknown;

const manifestType = 'application/vnd.oci.image.manifest.v1+json';
const indexType = 'application/vnd.oci.image.index.v1+json';
const configType = 'application/vnd.oci.image.config.v1+json';
const layerType = 'application/vnd.oci.image.layer.v1.tar';

interface Edits {
  readonly layer?: Buffer;
  readonly config?: Edit<Json>;
  readonly manifest?: Edit<Json>;
  readonly index?: Edit<Json>;
  readonly marker?: string;
  /** The last word. */
  readonly directory?: (path: string) => void;
}

const bytesOf = (value: unknown): Buffer => (Buffer.isBuffer(value) ? value : Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)));
const descriptor = (mediaType: string, bytes: Buffer): Json => ({ mediaType, digest: sha256(bytes), size: bytes.length });

/** A good layout, but for what is edited: what refers to it has the right digest. */
function layout(edits: Edits = {}): string {
  const path = join(temporary(), 'layout');
  mkdirSync(join(path, 'blobs/sha256'), { recursive: true });
  const blob = (bytes: Buffer): Buffer => {
    writeFileSync(join(path, 'blobs/sha256', sha256(bytes).slice(7)), bytes);
    return bytes;
  };
  const same = (value: Json): Json => value;
  const layer = blob(edits.layer ?? archive(file('a', 'x')));
  const config = blob(
    bytesOf(
      (edits.config ?? same)({ os: 'linux', architecture: 'amd64', config: {}, rootfs: { type: 'layers', diff_ids: [sha256(archive(file('a', 'x')))] } }),
    ),
  );
  const manifest = blob(
    bytesOf(
      (edits.manifest ?? same)({ schemaVersion: 2, mediaType: manifestType, config: descriptor(configType, config), layers: [descriptor(layerType, layer)] }),
    ),
  );
  const index = bytesOf((edits.index ?? same)({ schemaVersion: 2, mediaType: indexType, manifests: [descriptor(manifestType, manifest)] }));
  writeFileSync(join(path, 'index.json'), index);
  writeFileSync(join(path, 'oci-layout'), edits.marker ?? '{"imageLayoutVersion":"1.0.0"}');
  edits.directory?.(path);
  return path;
}

const kinds = ['blobs/sha256', 'tars', 'layers', 'chains', 'images', 'names', 'partial', 'temp'];

async function refusals(cases: Readonly<Record<string, string>>, options: object = {}): Promise<Record<string, string>> {
  const place = temporary();
  const store = await LayerStore.open(join(place, 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  const before = census(['descriptors']);
  const told: Record<string, string> = {};
  for (const [name, source] of Object.entries(cases)) {
    told[name] = await store.importImage(source, options).then(
      () => 'TAKEN',
      ({ code, message }: Error & { code?: string }) =>
        `${code}: ${message}`
          .replaceAll(source, 'LAYOUT')
          .replaceAll(place, 'PLACE')
          .replace(/temp\/\S+?\/\d+/g, 'TEMP')
          .replace(/[0-9a-f]{64}/g, 'HEX')
          // Newer Nodes tell more.
          .replace(/ \(line \d+ column \d+\)/, ''),
    );
    const left = kinds.flatMap((kind) => readdirSync(join(place, 'store', kind)).map((entry) => `${kind}/${entry}`));
    // A layer that was good, and then something else was not: nothing refers to it, and gc() takes it.
    expect([name, left.filter((entry) => !/^(blobs\/sha256|tars|layers)\//.test(entry))]).toEqual([name, []]);
  }
  await store.gc();
  expect(kinds.flatMap((kind) => readdirSync(join(place, 'store', kind)))).toEqual([]);
  expect(await store.verify()).toMatchObject({ ok: true, checked: 0 });
  await settled(() => leaks(before, census(['descriptors'])), { what: 'descriptors' });
  return told;
}

const deep = (levels: number): string => '['.repeat(levels) + ']'.repeat(levels);
/** JSON with some text where a value was. */
const raw = (json: Json, key: string, text: string): string => JSON.stringify({ ...json, [key]: '@@' }).replace('"@@"', text);

test('the layout that the others are made from is taken', async () => {
  const store = await LayerStore.open(join(temporary(), 'store'));
  expect((await store.importImage(layout())).layers).toHaveLength(1);
  await store[Symbol.asyncDispose]();
});

test('digests and sizes that lie', async () => {
  const other = archive(file('b', 'y'));
  const first = (json: Json): Json => (json['layers'] as Json[])[0] as Json;
  const edited = (edit: (layer: Json) => Json): Edits => ({ manifest: (json) => ({ ...json, layers: [edit(first(json))] }) });
  expect(
    await refusals({
      'a layer with other bytes': layout({
        directory: (path) => writeFileSync(join(path, 'blobs/sha256', sha256(archive(file('a', 'x'))).slice(7)), archive(file('a', 'z'))),
      }),
      'a layer that is another one': layout({ layer: other }),
      'a layer that is longer than it says': layout(edited((layer) => ({ ...layer, size: 100 }))),
      'a layer that is shorter than it says': layout(edited((layer) => ({ ...layer, size: 1_000_000 }))),
      'a size below zero': layout(edited((layer) => ({ ...layer, size: -1 }))),
      'a size of 2^60': layout(edited((layer) => ({ ...layer, size: 2 ** 60 }))),
      'a size as text': layout(edited((layer) => ({ ...layer, size: '512' }))),
      'a size that is no whole number': layout(edited((layer) => ({ ...layer, size: 0.5 }))),
      'a manifest with a wrong size': layout({
        index: (json) => ({ ...json, manifests: [{ ...(json['manifests'] as Json[])[0], size: 10 }] }),
      }),
      'a manifest of 1 TB': layout({ index: (json) => ({ ...json, manifests: [{ ...(json['manifests'] as Json[])[0], size: 1e12 }] }) }),
      'no blob': layout({ directory: (path) => rmSync(join(path, 'blobs'), { recursive: true }) }),
      'more layers than the configuration has': layout({ manifest: (json) => ({ ...json, layers: [first(json), first(json)] }) }),
      'fewer layers than the configuration has': layout({ manifest: (json) => ({ ...json, layers: [] }) }),
    }),
  ).toMatchInlineSnapshot(`
    {
      "a layer that is another one": "ERR_CLOISTER_DIGEST: a layer's uncompressed tar is not what its digest or size says: sha256:HEX expected, sha256:HEX found
      It was cut short or changed on its way; nothing of it has been kept.",
      "a layer that is longer than it says": "ERR_CLOISTER_DIGEST: a layer is not what its digest or size says: 100 bytes expected, more found
      It was cut short or changed on its way; nothing of it has been kept.",
      "a layer that is shorter than it says": "ERR_CLOISTER_DIGEST: a layer is not what its digest or size says: sha256:HEX of 1000000 bytes expected, sha256:HEX of 2048 bytes found
      It was cut short or changed on its way; nothing of it has been kept.",
      "a layer with other bytes": "ERR_CLOISTER_DIGEST: a layer is not what its digest or size says: sha256:HEX of 2048 bytes expected, sha256:HEX of 2048 bytes found
      It was cut short or changed on its way; nothing of it has been kept.",
      "a manifest of 1 TB": "ERR_CLOISTER_IMAGE: a document of 1000000000000 bytes is too big: application/vnd.oci.image.manifest.v1+json",
      "a manifest with a wrong size": "ERR_CLOISTER_IMAGE: LAYOUT/blobs/sha256/HEX is bigger than 10 bytes",
      "a size as text": "ERR_CLOISTER_IMAGE: layers[0].size has to be a number of bytes; it is "512"",
      "a size below zero": "ERR_CLOISTER_IMAGE: layers[0].size has to be a number of bytes; it is -1",
      "a size of 2^60": "ERR_CLOISTER_IMAGE: layers[0].size has to be a number of bytes; it is 1152921504606847000",
      "a size that is no whole number": "ERR_CLOISTER_IMAGE: layers[0].size has to be a number of bytes; it is 0.5",
      "fewer layers than the configuration has": "ERR_CLOISTER_IMAGE: the manifest has 0 layers and the configuration 1",
      "more layers than the configuration has": "ERR_CLOISTER_IMAGE: the manifest has 2 layers and the configuration 1",
      "no blob": "ERR_CLOISTER_NOT_FOUND: ENOENT: open blobs/sha256/HEX (realpath): no such file or directory",
    }
  `);
});

test('digests that are paths, and other things', async () => {
  const digest = (text: unknown): string =>
    layout({ manifest: (json) => ({ ...json, layers: [{ ...((json['layers'] as Json[])[0] as Json), digest: text }] }) });
  const hex = '0'.repeat(64);
  expect(
    await refusals({
      'a path': digest('sha256:../../../../etc/passwd'),
      'a path of the right length': digest(`sha256:${'../'.repeat(21)}x`),
      'an absolute path': digest('/etc/passwd'),
      'capital letters': digest(`sha256:${'A'.repeat(64)}`),
      'another algorithm': digest(`sha512:${hex}${hex}`),
      'an algorithm that is a path': digest(`../sha256:${hex}`),
      'a line more': digest(`sha256:${hex}\n`),
      'a NUL': digest(`sha256:${hex}\0`),
      'a number': digest(7),
      'an array that says it': digest([`sha256:${hex}`]),
      'a terminal sequence': digest('\u001b[2J\u009b31m\u202e'),
      'ten million letters': digest('s'.repeat(3_000_000)),
      'a hundred thousand brackets': layout({
        manifest: (json) => raw(json, 'layers', `[{"mediaType":"${layerType}","size":1,"digest":${deep(100_000)}}]`),
      }),
    }),
  ).toMatchInlineSnapshot(`
    {
      "a NUL": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sha256:00000000000000000000000000000000000000000000000000..."",
      "a hundred thousand brackets": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: an array of 1",
      "a line more": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sha256:00000000000000000000000000000000000000000000000000..."",
      "a number": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: 7",
      "a path": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sha256:../../../../etc/passwd"",
      "a path of the right length": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sha256:../../../../../../../../../../../../../../../../....."",
      "a terminal sequence": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "\\u001b[2J\\u009b31m\\u202e"",
      "an absolute path": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "/etc/passwd"",
      "an algorithm that is a path": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "../sha256:00000000000000000000000000000000000000000000000..."",
      "an array that says it": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: an array of 1",
      "another algorithm": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sha512:00000000000000000000000000000000000000000000000000..."",
      "capital letters": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA..."",
      "ten million letters": "ERR_CLOISTER_IMAGE: layers[0].digest is no sha256 digest: "sssssssssssssssssssssssssssssssssssssssssssssssssssssssss..."",
    }
  `);
});

test('documents that are none', async () => {
  const names = (json: Json, text: string): Json => ({
    ...json,
    manifests: ['1', '2'].map((n) => ({
      ...((json['manifests'] as Json[])[0] as Json),
      digest: `sha256:${n.repeat(64)}`,
      annotations: { 'org.opencontainers.image.ref.name': `${text}${n}` },
    })),
  });
  expect(
    await refusals({
      'no JSON': layout({ manifest: () => '{"schemaVersion":2,' }),
      'no UTF-8': layout({ manifest: () => Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]) }),
      'terminal sequences': layout({ manifest: () => '\u001b]0;pwned\u0007{' }),
      null: layout({ manifest: () => 'null' }),
      'a list': layout({ manifest: () => '[]' }),
      'a million brackets': layout({ manifest: () => deep(1_000_000) }),
      'a value that is a million brackets': layout({ manifest: (json) => raw(json, 'schemaVersion', deep(1_000_000)) }),
      'a constructor of its own': layout({ manifest: (json) => raw(json, 'schemaVersion', '{"constructor":{"name":{"toString":1}}}') }),
      'a constructor with a terminal sequence': layout({ manifest: (json) => ({ ...json, config: { constructor: { name: '\u001b[31m' } } }) }),
      'a prototype': layout({ manifest: () => '{"__proto__":{"schemaVersion":2,"config":{},"layers":[]}}' }),
      'five megabytes': layout({ config: (json) => ({ ...json, comment: 'x'.repeat(5_000_000) }) }),
      'an index of 10 MB': layout({ index: (json) => names(json, 'x'.repeat(5_000_000)) }),
      'another version': layout({ manifest: (json) => ({ ...json, schemaVersion: 1 }) }),
      'an index that says it is a manifest': layout({ manifest: (json) => ({ ...json, manifests: [] }) }),
      'a manifest that says it is an index': layout({ manifest: (json) => ({ ...json, mediaType: indexType }) }),
      'an index with layers': layout({ index: (json) => ({ ...json, layers: [] }) }),
      'five thousand layers': layout({ manifest: (json) => ({ ...json, layers: Array(5000).fill((json['layers'] as Json[])[0]) }) }),
      'an encrypted layer': layout({
        manifest: (json) => ({ ...json, layers: [{ ...((json['layers'] as Json[])[0] as Json), mediaType: `${layerType}+encrypted` }] }),
      }),
      'an artifact': layout({ manifest: (json) => ({ ...json, artifactType: 'application/x' }) }),
      'a helm chart': layout({
        manifest: (json) => ({ ...json, config: { ...(json['config'] as Json), mediaType: 'application/vnd.cncf.helm.config.v1+json' } }),
      }),
      "a media type that is a terminal's": layout({
        index: (json) => ({ ...json, manifests: [{ ...((json['manifests'] as Json[])[0] as Json), mediaType: '\u001b[2J' }] }),
      }),
      "two images with names of a terminal's": layout({ index: (json) => names(json, '\u001b[2J\n') }),
      'no image': layout({ index: (json) => ({ ...json, manifests: [] }) }),
      'no version': layout({ marker: '{}' }),
      'a version that is a million brackets': layout({ marker: `{"imageLayoutVersion":${deep(1_000_000)}}` }),
      'version 9': layout({ marker: '{"imageLayoutVersion":"9.0"}' }),
    }),
  ).toMatchInlineSnapshot(`
    {
      "a constructor of its own": "ERR_CLOISTER_IMAGE: schemaVersion of the manifest has to be 2; it is an instance of Object",
      "a constructor with a terminal sequence": "ERR_CLOISTER_IMAGE: config.size has to be a number of bytes; it is undefined",
      "a helm chart": "ERR_CLOISTER_IMAGE: the manifest has to be that of an image, with an image's config; it is "application/vnd.cncf.helm.config.v1+json"",
      "a list": "ERR_CLOISTER_IMAGE: the manifest has to be an object; it is an array of 0",
      "a manifest that says it is an index": "ERR_CLOISTER_IMAGE: mediaType of the manifest has to be application/vnd.oci.image.manifest.v1+json; it is "application/vnd.oci.image.index.v1+json"",
      "a media type that is a terminal's": "ERR_CLOISTER_IMAGE: this is no image: its type is \\u001b[2J
      Taken are application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json; Docker's schema 1 of before 2017 is not.",
      "a million brackets": "ERR_CLOISTER_IMAGE: the manifest has to be an object; it is an array of 1",
      "a prototype": "ERR_CLOISTER_IMAGE: schemaVersion of the manifest has to be 2; it is undefined",
      "a value that is a million brackets": "ERR_CLOISTER_IMAGE: schemaVersion of the manifest has to be 2; it is an array of 1",
      "a version that is a million brackets": "ERR_CLOISTER_IMAGE: the layout's version is an array of 1, not 1",
      "an artifact": "ERR_CLOISTER_IMAGE: the manifest has to be that of an image, with an image's config; it is "application/x"",
      "an encrypted layer": "ERR_CLOISTER_IMAGE: layers[0].mediaType has to be that of a layer (not encrypted); it is "application/vnd.oci.image.layer.v1.tar+encrypted"",
      "an index of 10 MB": "ERR_CLOISTER_IMAGE: LAYOUT/index.json is bigger than 4194304 bytes",
      "an index that says it is a manifest": "ERR_CLOISTER_IMAGE: the manifest has to be one image, without a list of manifests; it is an instance of Object",
      "an index with layers": "ERR_CLOISTER_IMAGE: the index has to be a list of manifests, without layers of its own; it is an instance of Object",
      "another version": "ERR_CLOISTER_IMAGE: schemaVersion of the manifest has to be 2; it is 1",
      "five megabytes": "ERR_CLOISTER_IMAGE: a document of 5000176 bytes is too big: application/vnd.oci.image.config.v1+json",
      "five thousand layers": "ERR_CLOISTER_IMAGE: layers has to be an array of at most 4096; it is an array of 5000",
      "no JSON": "ERR_CLOISTER_IMAGE: the manifest is not JSON: Expected double-quoted property name in JSON at position 19",
      "no UTF-8": "ERR_CLOISTER_IMAGE: the manifest is not JSON: The encoded data was not valid for encoding utf-8",
      "no image": "ERR_CLOISTER_NOT_FOUND: the layout has no image
      It has none.",
      "no version": "ERR_CLOISTER_IMAGE: the layout's version is undefined, not 1",
      "null": "ERR_CLOISTER_IMAGE: the manifest has to be an object; it is null",
      "terminal sequences": "ERR_CLOISTER_IMAGE: the manifest is not JSON: Unexpected token '\\u001b', "\\u001b]0;pwned\\u0007{" is not valid JSON",
      "two images with names of a terminal's": "ERR_CLOISTER_AMBIGUOUS: the layout has several images: \\u001b[2J\\u000a1, \\u001b[2J\\u000a2
      Say which by 'path:name', or 'path:sha256:…'.",
      "version 9": "ERR_CLOISTER_IMAGE: the layout's version is "9.0", not 1",
    }
  `);
});

test('configurations that are none', async () => {
  const config = (edit: Json): string => layout({ config: (json) => ({ ...json, config: edit }) });
  const rootfs = (edit: unknown): string => layout({ config: (json) => ({ ...json, rootfs: edit }) });
  expect(
    await refusals({
      'no rootfs': rootfs(undefined),
      'a rootfs of another type': rootfs({ type: 'foreign', diff_ids: [] }),
      'a layer that is a path': rootfs({ type: 'layers', diff_ids: ['../../../etc'] }),
      'layers that are no list': rootfs({ type: 'layers', diff_ids: { length: 1 } }),
      'Env with a number': config({ Env: [1] }),
      'Env without a name': config({ Env: ['=x'] }),
      'Env with a NUL': config({ Env: ['A=\0'] }),
      'Env that is text': config({ Env: 'A=1' }),
      'Cmd of five thousand': config({ Cmd: Array(5000).fill('x') }),
      'User that is a list': config({ User: ['root'] }),
      'Labels that are numbers': config({ Labels: { '\u001b[2J': 1 } }),
      'Volumes that are text': config({ Volumes: { '/x': 'y' } }),
      'a platform that is a number': layout({ config: (json) => ({ ...json, os: 7 }) }),
    }),
  ).toMatchInlineSnapshot(`
    {
      "Cmd of five thousand": "ERR_CLOISTER_IMAGE: config.Cmd has to be an array of at most 4096; it is an array of 5000",
      "Env that is text": "ERR_CLOISTER_IMAGE: config.Env has to be an array; it is "A=1"",
      "Env with a NUL": "ERR_CLOISTER_IMAGE: config.Env[0] has to be a string without NUL bytes; it is "A=\\u0000"",
      "Env with a number": "ERR_CLOISTER_IMAGE: config.Env[0] has to be a string without NUL bytes; it is 1",
      "Env without a name": "ERR_CLOISTER_IMAGE: config.Env[0] has to be NAME=value; it is "=x"",
      "Labels that are numbers": "ERR_CLOISTER_IMAGE: config.Labels.\\u001b[2J has to be a string without NUL bytes; it is 1",
      "User that is a list": "ERR_CLOISTER_IMAGE: config.User has to be a string without NUL bytes; it is an array of 1",
      "Volumes that are text": "ERR_CLOISTER_IMAGE: config.Volumes./x has to be an object; it is "y"",
      "a layer that is a path": "ERR_CLOISTER_IMAGE: rootfs.diff_ids[0] is no sha256 digest: "../../../etc"",
      "a platform that is a number": "ERR_CLOISTER_IMAGE: the configuration.os has to be a string without NUL bytes; it is 7",
      "a rootfs of another type": "ERR_CLOISTER_IMAGE: rootfs.type has to be 'layers'; it is "foreign"",
      "layers that are no list": "ERR_CLOISTER_IMAGE: rootfs.diff_ids has to be an array; it is an instance of Object",
      "no rootfs": "ERR_CLOISTER_IMAGE: rootfs has to be an object; it is undefined",
    }
  `);
});

test('indexes that lead round in circles', async () => {
  // What names itself by its own digest cannot be made; so they are many, each of the next one.
  const nested = (depth: number): string =>
    layout({
      directory: (path) => {
        let inner = descriptor(manifestType, Buffer.from('nothing'));
        for (let level = 0; level < depth; level++) {
          const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests: [inner] }));
          writeFileSync(join(path, 'blobs/sha256', sha256(bytes).slice(7)), bytes);
          inner = descriptor(indexType, bytes);
        }
        writeFileSync(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [inner] }));
      },
    });
  const itself = layout({
    directory: (path) => {
      const text = JSON.stringify({
        schemaVersion: 2,
        mediaType: indexType,
        manifests: [{ mediaType: indexType, digest: `sha256:${'0'.repeat(64)}`, size: 200 }],
      });
      writeFileSync(join(path, 'blobs/sha256', '0'.repeat(64)), text);
      writeFileSync(join(path, 'index.json'), text);
    },
  });
  expect(
    await refusals({ 'a hundred indexes': nested(100), 'an index of itself': itself, 'of a manifest that is not there': nested(2) }),
  ).toMatchInlineSnapshot(`
    {
      "a hundred indexes": "ERR_CLOISTER_IMAGE: indexes are nested deeper than 4",
      "an index of itself": "ERR_CLOISTER_IMAGE: LAYOUT/blobs/sha256/HEX is bigger than 200 bytes",
      "of a manifest that is not there": "ERR_CLOISTER_NOT_FOUND: ENOENT: open blobs/sha256/HEX (realpath): no such file or directory",
    }
  `);
});

test('files that are none', async () => {
  const secret = temporary({ secret: '{"schemaVersion":2}' });
  const replaced = (name: string, make: (path: string) => void): string =>
    layout({
      directory: (path) => {
        rmSync(join(path, name), { recursive: true });
        make(join(path, name));
      },
    });
  const good = layout();
  const fifo = (path: string): void => void execFileSync('mkfifo', [path]);
  expect(
    await refusals({
      'an index that is a symlink': replaced('index.json', (path) => symlinkSync(join(secret, 'secret'), path)),
      'an index that is a fifo': replaced('index.json', fifo),
      'an index that is a directory': replaced('index.json', (path) => mkdirSync(path)),
      'a marker that is a fifo': replaced('oci-layout', fifo),
      'blobs that are somewhere else': replaced('blobs', (path) => symlinkSync(join(good, 'blobs'), path)),
      'a directory of nothing': temporary(),
      'a path with a colon': `${good}:nothing`,
    }),
  ).toMatchInlineSnapshot(`
    {
      "a directory of nothing": "ERR_CLOISTER_IMAGE: LAYOUT is no image: it has neither oci-layout and index.json, nor manifest.json
      A tar of files, without a manifest, is a layer: import() takes it.",
      "a marker that is a fifo": "ERR_CLOISTER_IMAGE: LAYOUT/oci-layout is no regular file",
      "a path with a colon": "ERR_CLOISTER_NOT_FOUND: the layout has no image called 'nothing'
      It has sha256:HEX.",
      "an index that is a directory": "ERR_CLOISTER_IMAGE: LAYOUT/index.json is no regular file",
      "an index that is a fifo": "ERR_CLOISTER_IMAGE: LAYOUT/index.json is no regular file",
      "an index that is a symlink": "ERR_CLOISTER_IMAGE: LAYOUT/index.json is a symbolic link",
      "blobs that are somewhere else": "ERR_CLOISTER_IMAGE: "blobs/sha256/HEX" leads out of the image",
    }
  `);
});

test('archives', async () => {
  const packed = (bytes: Buffer): string => {
    const path = join(temporary(), 'image.tar');
    writeFileSync(path, bytes);
    return path;
  };
  const docker = (manifest: unknown, ...more: Buffer[]): string =>
    packed(archive(file('manifest.json', typeof manifest === 'string' ? manifest : JSON.stringify(manifest)), ...more));
  const tar = archive(file('a', 'x'));
  const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [sha256(tar)] } });
  const item = { Config: 'config.json', RepoTags: null, Layers: ['layer.tar'] };
  const good = [file('config.json', config), file('layer.tar', tar)];
  const elsewhere = layout();
  expect(
    await refusals(
      {
        'names that lead out': packed(archive(file('../manifest.json', '[]'))),
        'a text': packed(Buffer.alloc(3000, 'text ')),
        'an empty file': packed(Buffer.alloc(0)),
        'a tar of files': packed(archive(file('a', 'x'))),
        'a bomb': packed(gzipSync(archive(file('manifest.json', Buffer.alloc(2 ** 25))))),
        'gzip that is cut short': packed(gzipSync(tar).subarray(0, 30)),
        'gzip of nothing that it knows': packed(Buffer.concat([gzipSync(tar).subarray(0, 10), Buffer.alloc(2000, 0xff)])),
        'a layout whose blobs are elsewhere': packed(
          archive(
            file('oci-layout', '{"imageLayoutVersion":"1.0.0"}'),
            file('index.json', execFileSync('cat', [join(elsewhere, 'index.json')])),
            symlink('blobs', join(elsewhere, 'blobs')),
          ),
        ),
        'a configuration that is elsewhere': docker([{ ...item, Config: '../../../../etc/passwd' }]),
        'a configuration with an absolute name': docker([{ ...item, Config: '/etc/passwd' }]),
        'a configuration that is a symlink to elsewhere': docker([item], symlink('config.json', '/etc/passwd')),
        'a configuration that is a directory': docker([item], directory('config.json')),
        'a layer that is elsewhere': docker([{ ...item, Layers: ['../../../../../etc/passwd'] }], ...good),
        'a layer that is a symlink to elsewhere': docker([item], good[0] as Buffer, symlink('layer.tar', '/etc/hostname')),
        'a layer that is a symlink to itself': docker([item], good[0] as Buffer, symlink('layer.tar', 'layer.tar')),
        'a layer that is not there': docker([{ ...item, Layers: ['\u001b[2J'] }], good[0] as Buffer),
        'a layer that is another one': docker([item], good[0] as Buffer, file('layer.tar', archive(file('b', 'y')))),
        'too many layers': docker([{ ...item, Layers: ['layer.tar', 'layer.tar'] }], ...good),
        'two images': docker(
          [
            { ...item, RepoTags: ['\u001b[2J'] },
            { ...item, RepoTags: ['x'.repeat(5000)] },
          ],
          ...good,
        ),
        'a name with a NUL': docker([{ ...item, Config: 'config.json\0' }], ...good),
        'no list': docker({}),
        'a manifest of brackets': docker(deep(1_000_000)),
      },
      { sizeLimit: '4M' },
    ),
  ).toMatchInlineSnapshot(`
    {
      "a bomb": "ERR_CLOISTER_LAYER: not taken as a layer: /manifest.json: with it the layer has more than 4194304 bytes",
      "a configuration that is a directory": "ERR_CLOISTER_IMAGE: PLACE/store/TEMP/config.json is no regular file",
      "a configuration that is a symlink to elsewhere": "ERR_CLOISTER_IMAGE: "config.json" leads out of the image",
      "a configuration that is elsewhere": "ERR_CLOISTER_IMAGE: "../../../../etc/passwd" leads out of the image",
      "a configuration with an absolute name": "ERR_CLOISTER_IMAGE: "/etc/passwd" leads out of the image",
      "a layer that is a symlink to elsewhere": "ERR_CLOISTER_IMAGE: "layer.tar" leads out of the image",
      "a layer that is a symlink to itself": "ERR_CLOISTER_IMAGE: ELOOP: open layer.tar (realpath): too many symbolic links encountered",
      "a layer that is another one": "ERR_CLOISTER_DIGEST: a layer's uncompressed tar is not what its digest or size says: sha256:HEX expected, sha256:HEX found
      It was cut short or changed on its way; nothing of it has been kept.",
      "a layer that is elsewhere": "ERR_CLOISTER_IMAGE: "../../../../../etc/passwd" leads out of the image",
      "a layer that is not there": "ERR_CLOISTER_NOT_FOUND: ENOENT: open \\u001b[2J (realpath): no such file or directory",
      "a layout whose blobs are elsewhere": "ERR_CLOISTER_IMAGE: "blobs/sha256/HEX" leads out of the image",
      "a manifest of brackets": "ERR_CLOISTER_IMAGE: manifest.json[0] has to be an object; it is an array of 1",
      "a name with a NUL": "ERR_CLOISTER_IMAGE: manifest.json[0].Config has to be a string without NUL bytes; it is "config.json\\u0000"",
      "a tar of files": "ERR_CLOISTER_IMAGE: LAYOUT is no image: it has neither oci-layout and index.json, nor manifest.json
      A tar of files, without a manifest, is a layer: import() takes it.",
      "a text": "ERR_CLOISTER_LAYER: not taken as a layer: this is no tar, or it is damaged: a header has a wrong checksum",
      "an empty file": "ERR_CLOISTER_LAYER: not taken as a layer: the tar is cut short: there is no end of it
      A tar ends with two blocks of zeros.",
      "gzip of nothing that it knows": "ERR_CLOISTER_IMAGE: LAYOUT: the gzip stream is broken: invalid block type",
      "gzip that is cut short": "ERR_CLOISTER_IMAGE: LAYOUT: the gzip stream is broken: unexpected end of file",
      "names that lead out": "ERR_CLOISTER_LAYER: not taken as a layer: /../manifest.json: it has '..' in its name",
      "no list": "ERR_CLOISTER_IMAGE: manifest.json has to be an array; it is an instance of Object",
      "too many layers": "ERR_CLOISTER_IMAGE: Layers has to be the 1 of the configuration; it is an array of 2",
      "two images": "ERR_CLOISTER_AMBIGUOUS: the archive has several images: \\u001b[2J, xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
      Say which by 'path:name'.",
    }
  `);
}, 240_000);

testNeeding(['root'])('a device in an archive is not opened', async () => {
  const store = await LayerStore.open(join(temporary(), 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  const path = join(temporary(), 'layout');
  mkdirSync(path);
  writeFileSync(join(path, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  // A tty that is opened without O_NOCTTY, a watchdog, a tape: to open is to act. /dev/full can be opened without harm, and counted.
  execFileSync('mknod', [join(path, 'index.json'), 'c', '1', '7']);
  await expect(store.importImage(path)).rejects.toMatchObject({ code: 'ERR_CLOISTER_IMAGE', message: `${join(path, 'index.json')} is no regular file` });
});

test('an archive of a compression that is not taken leaves no descriptor', async () => {
  const store = await LayerStore.open(join(temporary(), 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  const path = join(temporary(), 'archive');
  writeFileSync(path, Buffer.concat([Buffer.from('fd377a585a00', 'hex'), Buffer.alloc(2 ** 20)]));
  const before = census(['descriptors']);
  for (let times = 0; times < 5; times++) await expect(store.importImage(path)).rejects.toThrow(/xz or bzip2/);
  await settled(() => leaks(before, census(['descriptors'])), { what: 'descriptors' });
});

test('an image that nobody could run says why, without its own words', async () => {
  const store = await LayerStore.open(join(temporary(), 'store'));
  onTestFinished(() => store[Symbol.asyncDispose]());
  const told: string[] = [];
  for (const config of [{ WorkingDir: '../../\u001b[2J' }, { User: '\u009b31m:a:b' }]) {
    const image = await store.importImage(layout({ config: (json) => ({ ...json, config }) }), { name: 'n\u001b[31m' });
    told.push(
      await (async () => await runIsolated('/a', [], { rootfs: image }))().then(
        () => 'RUN',
        (error: Error) => error.message,
      ),
    );
  }
  expect(told).toMatchInlineSnapshot(`
    [
      "the config of n\\u001b[31m has WorkingDir "../../\\u001b[2J", which has to be an absolute path
      Say it yourself in the options of the spawn.",
      "the config of n\\u001b[31m has User "\\u009b31m:a:b", which has to be 'name', 'name:group', or numbers
      Say it yourself in the options of the spawn.",
    ]
  `);
});
