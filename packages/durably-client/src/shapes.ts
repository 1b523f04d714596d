/** What an answer must be like before anybody looks into it: JSON may be that of another service. */
export interface Shape {
  readonly name: string
  readonly fits: (answer: unknown) => boolean
}

export const objects: Shape = {
  name: 'an array of objects',
  fits: (answer) => Array.isArray(answer) && answer.every(isObject),
}

export function objectWith(field: string): Shape {
  return {
    name: `an object with \`${field}\``,
    fits: (answer) => isObject(answer) && typeof answer[field] === 'string',
  }
}

export const anything: Shape = { name: 'JSON', fits: () => true }

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
