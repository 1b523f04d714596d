export type { TriggerOptions, TriggerResult } from './api.js'
export {
  createDurablyClient,
  DurablyClient,
  type ConnectionOptions,
  type DurablyClientOptions,
  type JobClient,
  type TypedDurablyClient,
} from './client.js'
export {
  ApiError,
  DurablyClientError,
  InvalidAddressError,
  InvalidResponseError,
  RunCancelledError,
  RunEndedError,
  RunFailedError,
  RunLostError,
} from './errors.js'
export type { DurablyEvent, LogEvent, RunEvent, StepEvent } from './events.js'
export { httpTransport, type HttpTransportOptions } from './http-transport.js'
export { JobObserver, type JobObserverOptions, type TriggerAndWaitResult } from './job-observer.js'
export {
  jobProxy,
  type InputOf,
  type JobMap,
  type JobName,
  type JobNames,
  type JobProperty,
  type JobTypes,
  type NamesOption,
  type OutputOf,
  type RunOf,
  type UntypedJobs,
} from './jobs.js'
export type { RunFilter, RunsSubscribeFilter } from './queries.js'
export { reduceRun, reduceRuns, initialRunState, type RunAction, type RunState } from './reducer.js'
export { RunListObserver, type RunListQuery, type RunListState } from './run-list-observer.js'
export { RunObserver, type RunObserverOptions } from './run-observer.js'
export {
  statusFlags,
  type ClientRun,
  type JobInfo,
  type Labels,
  type LogEntry,
  type LogLevel,
  type Progress,
  type RunStatus,
  type StatusFlags,
  type StepRecord,
} from './runs.js'
export type { Observable } from './store.js'
export type {
  Connection,
  ConnectionHandlers,
  Transport,
  TransportRequest,
  TransportResponse,
} from './transport.js'
export { waitForRun, type WaitOptions } from './wait-for-run.js'
export { watchRun, type RunCallbacks } from './watch-run.js'
