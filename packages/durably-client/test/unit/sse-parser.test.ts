import { expect, test } from 'vitest'
import { ServerSentEventParser, type ServerSentMessage } from '../../src/sse-parser.js'

function parse(pieces: string[], lastEventId: string | null = null): ServerSentMessage[] {
  const messages: ServerSentMessage[] = []
  const parser = new ServerSentEventParser((message) => messages.push(message), () => {}, lastEventId)
  for (const piece of pieces) parser.push(piece)
  return messages
}

test('an id without a message tells how far the stream has come', () => {
  const heard: unknown[] = []
  const parser = new ServerSentEventParser(
    ({ data, id }) => heard.push([data, id]),
    (id) => heard.push(id),
  )
  parser.push('id: 1\n\n: nothing new\n\ndata: a\n\nid: 2\n\nid: 3\ndata: b\n\n')
  expect(heard).toEqual(['1', ['a', '1'], '2', ['b', '3']])
})

test('a message ends with a blank line', () => {
  expect(parse(['data: {"a":1}\n\n', 'data: unfinished\n'])).toEqual([{ data: '{"a":1}', id: null }])
})

test('the cut between two pieces may be anywhere', () => {
  const text = 'id: 7\ndata: one\n\ndata: two\r\n\r\ndata: three\r\r'
  for (let cut = 1; cut < text.length; cut++) {
    const found = parse([text.slice(0, cut), text.slice(cut), '\n'])
    expect(found.map(({ data }) => data)).toEqual(['one', 'two', 'three'])
  }
})

test('comments, retry lines and event names are let through', () => {
  expect(parse([': keep-alive\n\nretry: 100\nevent: x\ndata: one\n\n'])).toEqual([{ data: 'one', id: null }])
})

test('several data lines are one message, and only one leading space is dropped', () => {
  expect(parse(['data: a\ndata:b\ndata:  c\n\n'])).toEqual([{ data: 'a\nb\n c', id: null }])
})

test('an id stays in force until the next one', () => {
  const found = parse(['id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\nid: bad\0\ndata: d\n\n'], '0')
  expect(found.map(({ id }) => id)).toEqual(['1', '1', '2', '2'])
})

test('before the first id of a resumed stream, the one it was resumed from is in force', () => {
  expect(parse(['data: a\n\n'], '41')).toEqual([{ data: 'a', id: '41' }])
})
