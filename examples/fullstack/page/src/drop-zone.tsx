import { useEffect, useState, type DragEvent, type ReactNode } from 'react'

interface DropZoneProps {
  isDisabled: boolean
  onDrop: (files: File[]) => void
  children: ReactNode
}

/** Takes dropped files; none while it is disabled, and the pointer says so. */
export function DropZone({ isDisabled, onDrop, children }: DropZoneProps) {
  const [isDragging, setDragging] = useState(false)
  useEffect(refuseOtherDrops, [])

  function take(event: DragEvent) {
    event.preventDefault()
    setDragging(false)
    onDrop([...event.dataTransfer.files])
  }

  function allow(event: DragEvent) {
    event.preventDefault()
    setDragging(true)
  }

  function leave({ currentTarget, relatedTarget }: DragEvent) {
    // From the zone to the button inside it is not out of it.
    if (!currentTarget.contains(relatedTarget as Node | null)) setDragging(false)
  }

  return (
    <div
      className={isDragging ? 'drop dragging' : 'drop'}
      onDragOver={isDisabled ? undefined : allow}
      onDragLeave={leave}
      onDrop={isDisabled ? undefined : take}
    >
      {children}
    </div>
  )
}

/** A file that nobody takes would be opened by the browser, in place of this page. */
function refuseOtherDrops(): () => void {
  function refuse(event: globalThis.DragEvent) {
    if (event.defaultPrevented) return
    event.preventDefault()
    if (event.dataTransfer) event.dataTransfer.dropEffect = 'none'
  }
  window.addEventListener('dragover', refuse)
  window.addEventListener('drop', refuse)
  return () => {
    window.removeEventListener('dragover', refuse)
    window.removeEventListener('drop', refuse)
  }
}
