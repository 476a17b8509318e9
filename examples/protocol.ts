// What travels between a client and the service of an agent, as types. Members that are not named here are kept by both sides.

export type JSONValue = null | boolean | number | string | JSONValue[] | JSONObject;
export type JSONObject = { [key: string]: JSONValue };

/** data.session: only the token counts. Every other member is a mirror of the state, for display. */
export interface Session {
  readonly dcaf: { readonly token: string; readonly expires_at?: number; readonly restarted?: string; readonly retry?: boolean };
  readonly [key: string]: JSONValue | Session["dcaf"] | undefined;
}

/** The body of a request. The last message is the user's; any further member goes to the agent, such as thread_id. */
export interface Turn {
  messages: Message[];
  data?: { session?: Session | null };
  platform_context?: JSONObject | null;
  [field: string]: unknown;
}

export interface Message {
  role: "user" | "assistant";
  content?: string;
  data?: Data | null;
  platform_context?: JSONObject | null;
}

/** What stands beside the text of a message. */
export interface Data {
  session?: Session | null;
  approvals?: Approval[]; // of an answer: all that wait
  executed_approvals?: ExecutedApproval[];
  executed_tool_calls?: ExecutedToolCall[];
  tool_calls?: PendingToolCall[];
  cmds?: JSONValue[];
  executed_cmds?: JSONValue[];
  url_configs?: JSONValue[];
}

/** The answer of POST /api/chat, and what the events of a stream amount to. */
export interface Answer extends Message {
  role: "assistant";
  content: string;
  data: Data;
  meta_data?: MetaData;
}

export interface ToolCall {
  id: string;
  name: string;
  input: JSONObject;
}

/** A call that waits for a person. It goes back as it came, but for execute, or rejection_reason. */
export interface Approval extends ToolCall {
  type: string;
  execute: boolean;
  rejection_reason: string | null;
  description: string;
  intent: string | null;
}

/** The same in an older form. */
export interface PendingToolCall extends ToolCall {
  execute: boolean;
  rejection_reason: string | null;
  tool_description: string;
  input_description: JSONObject;
  intent: string | null;
}

export interface ExecutedToolCall extends ToolCall {
  output: string;
}

/** What became of a decision. */
export interface ExecutedApproval extends ExecutedToolCall {
  type: string;
}

export interface MetaData {
  stop_reason: string; // "end_turn", "tool_use" where calls wait, "max_tokens" and others: the guide has the list
  has_pending_approvals: boolean;
  is_complete: boolean;
  blocked?: JSONObject | null;
  request_context?: JSONObject | null;
}

/** One line of a stream, one frame of a socket. Pass over those that you do not know. */
export type AgentEvent =
  | { type: "text_delta"; text: string }
  | { type: "intermittent_update"; text: string; content: JSONObject }
  | { type: "executed_tool_calls"; executed_tool_calls: ExecutedToolCall[] }
  | { type: "approvals"; approvals: Approval[] }
  | { type: "tool_calls"; tool_calls: PendingToolCall[] }
  | { type: "executed_approvals"; executed_approvals: ExecutedApproval[] }
  | { type: "session"; data: { session: Session } }
  | { type: "done"; stop_reason: string; meta_data: Partial<MetaData>; data?: Data }
  | { type: "error"; code: string; error?: string; applied?: boolean | "partial"; ran?: boolean; data?: { session: Session } };

/** Why a turn was refused: the body of an answer that is no success (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  code: string;
  applied?: boolean | "partial"; // of "session-conflict": whether what was asked for has been done
  ran?: boolean; // of "session-unavailable": whether the turn had run
  data?: { session: Session }; // adopt it: {"dcaf": {"token": "new"}} says that the session before is dead
  problems?: { path: string; problem: string }[]; // of "malformed-request"
}

/** What ends a turn of client.mjs early. */
export interface Options {
  signal?: AbortSignal;
}

/** What a turn of client.mjs tells as it comes. After "again" what came before is void: it was lost, and the turn was sent again. */
export type TurnEvent = AgentEvent | { type: "again"; attempt: number };

/** What a turn of client.mjs gives. */
export interface Answered extends Answer {
  restarted: string; // the code of the refusal after which a new session was begun, else empty
  attempts: number; // how often the turn was sent: more than once where an answer was lost
}

/** Why a turn of client.mjs has no answer: the code of the service, or http-404 and the like, or one of its own. */
export interface TurnError extends Error {
  code: "aborted" | "no-answer" | "broken-off" | "no-end" | "not-json" | (string & {});
  applied?: boolean | "partial"; // of "session-conflict": true where the turn was done, and its words are lost
}
