export interface HostReport {
  kernel: string;
  uid: number;
  checks: readonly HostCheck[];
}
export interface HostCheck {
  name: string;
  ok: boolean;
  evidence: readonly string[];
  cause?: string;
  mends?: readonly string[];
}
export interface ReapReport {
  removed: readonly { kind: string; name: string; ownerPid: number }[];
}
