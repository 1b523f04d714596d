import { createDurably, type RunOf } from 'durably-react'
import { jobNames, type Jobs } from './durably.gen'

export type { Summary } from './durably.gen'

export const durably = createDurably<Jobs>({ api: '/api/durably', names: jobNames })

export type Run = RunOf<Jobs>
