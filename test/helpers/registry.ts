/** A registry of Debian's docker-registry, or one of our own that misbehaves. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { temporary } from '../integration/trees.js';
import { sha256 } from './images.js';
import { Lines } from './lines.js';

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** host:port of a docker-registry that has begun to listen. */
export async function dockerRegistry(): Promise<string> {
  const directory = temporary();
  const port = await freePort();
  writeFileSync(
    join(directory, 'config.yml'),
    `version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: ${directory}/data}}\nhttp: {addr: 127.0.0.1:${port}}\n`,
  );
  const registry = spawn('docker-registry', ['serve', join(directory, 'config.yml')], { stdio: ['ignore', 'ignore', 'pipe'] });
  onTestFinished(async () => {
    registry.kill('SIGKILL');
    if (registry.exitCode === null && registry.signalCode === null) await once(registry, 'exit');
  });
  await new Lines(registry.stderr).until(/listening on/);
  registry.stderr.resume();
  return `127.0.0.1:${port}`;
}

export interface Blobs {
  /** By digest. */
  readonly content: ReadonlyMap<string, Buffer>;
  /** By tag. */
  readonly manifests: ReadonlyMap<string, { readonly type: string; readonly bytes: Buffer }>;
}
export interface OwnRegistry {
  readonly host: string;
  /** What has been asked for: 'GET /v2/… bytes=5-'. */
  readonly requests: string[];
}
/** true: it has answered. */
export type Trouble = (request: IncomingMessage, response: ServerResponse, blobs: Blobs) => boolean | undefined;

/** Serves what it is given, unless `trouble` does something else. */
export async function ownRegistry(blobs: Blobs, trouble: Trouble = () => false): Promise<OwnRegistry> {
  const requests: string[] = [];
  const server: Server = createServer((request, response) => {
    const { method, url = '' } = request;
    requests.push([method, url, request.headers.range, request.headers.authorization].filter(Boolean).join(' '));
    if (trouble(request, response, blobs)) return;
    const [, kind, name = ''] = /^\/v2\/[a-z/]+\/(manifests|blobs)\/([^/?]+)$/.exec(url) ?? [];
    if (kind === 'manifests') {
      const manifest = blobs.manifests.get(name) ?? [...blobs.manifests.values()].find(({ bytes }) => sha256(bytes) === name);
      if (manifest) return void response.writeHead(200, { 'content-type': manifest.type, 'docker-content-digest': sha256(manifest.bytes) }).end(manifest.bytes);
    }
    const content = kind === 'blobs' ? blobs.content.get(name) : undefined;
    if (!content) return void response.writeHead(404, { 'content-type': 'application/json' }).end('{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}');
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const headers = start > 0 ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {};
    response.writeHead(start > 0 ? 206 : 200, { ...headers, 'content-length': content.length - start }).end(content.subarray(start));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
  });
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}
