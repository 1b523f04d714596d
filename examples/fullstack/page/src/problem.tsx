/** Says what went wrong, if anything did. */
export function Problem({ text }: { text: string | null }) {
  return (
    text && (
      <p className="problem" role="alert">
        {text}
      </p>
    )
  )
}
