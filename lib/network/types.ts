import type * as net from 'node:net';
import type { Bridge } from './bridge.js';

export interface NetworkOptions {
  bridge?: Bridge;
  address?: string;
  mac?: string;
  ports?: readonly { host: number; guest: number; address?: string; protocol?: 'tcp' | 'udp' }[];
  bandwidth?: { egressBps?: number; ingressBps?: number; delayMs?: number; lossPercent?: number };
  egress?: 'deny' | { allow: readonly string[] } | ((request: EgressRequest) => boolean | EgressTarget | Promise<boolean | EgressTarget>);
  dns?: Record<string, string>;
}
export interface EgressRequest {
  protocol: 'tcp' | 'udp';
  address: string;
  port: number;
  hostname?: string;
  pid?: number;
}
export type EgressTarget = { host?: string; port?: number } | { path: string } | ((socket: net.Socket) => void);
