/** Stand-ins for the world outside, on addresses of this host: what a sandbox may reach, or may not. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import * as http from 'node:http';
import * as https from 'node:https';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Denial, RunOptions } from 'cloister';
import { type IsolatedProcess, spawnIsolated } from 'cloister';

export const portOf = (server: net.Server): number => (server.address() as net.AddressInfo).port;

async function listening<S extends net.Server>(server: S): Promise<S & AsyncDisposable> {
  const open = new Set<net.Socket>();
  server.on('connection', (socket: net.Socket) => {
    open.add(socket.on('error', () => {}));
    socket.on('close', () => open.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(server, {
    [Symbol.asyncDispose]: async () => {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

/** It says which Host was asked for, and at which path. */
export const httpServer = (handler?: http.RequestListener): Promise<http.Server & AsyncDisposable> =>
  listening(http.createServer(handler ?? ((request, response) => response.end(`${request.headers.host?.split(':')[0]} ${request.url}`))));

export interface Certificate {
  readonly key: string;
  readonly cert: string;
}

/** For these names, signed by itself. */
export function certificateFor(...names: string[]): Certificate {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-certificate-'));
  try {
    const [key, cert] = [join(directory, 'key'), join(directory, 'cert')];
    const alternatives = `subjectAltName=${names.map((name) => `DNS:${name}`).join(',')}`;
    const words = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${names[0]}`];
    execFileSync('openssl', [...words, '-addext', alternatives, '-keyout', key, '-out', cert], { stdio: 'ignore' });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

export const httpsServer = (certificate: Certificate): Promise<https.Server & AsyncDisposable> =>
  listening(https.createServer(certificate, (request, response) => response.end(`secret ${request.headers.host?.split(':')[0]}`)));

export const tcpServer = (onConnection: (socket: net.Socket) => void): Promise<net.Server & AsyncDisposable> =>
  listening(net.createServer({ allowHalfOpen: true }, onConnection));

export interface Told {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly denied: readonly Denial[];
  readonly process: IsolatedProcess;
}

/** Runs it to its end, and tells what was denied meanwhile. */
export async function runTelling(command: string, args: readonly string[], options: Omit<RunOptions, 'stdio' | 'tty' | 'input' | 'encoding'>): Promise<Told> {
  const process = spawnIsolated(command, args, options);
  const denied: Denial[] = [];
  process.on('denied', (denial) => denied.push(denial));
  process.stdin.end();
  const [stdout, stderr, { exitCode }] = await Promise.all([text(process.stdout), text(process.stderr), process.exited]);
  return { exitCode, stdout, stderr, denied, process };
}
