"""What the longer examples share.

toolbox.request     the fields of a request, or DoNotRetry
toolbox.files       files that a function leaves behind
toolbox.web         fetching what others serve, or Refused, or TryLater (httpx)
toolbox.html        from a page to what it says (selectolax)
toolbox.tables      from JSON or CSV to a table with totals
toolbox.pdf         how a report looks (fpdf2)
toolbox.guestbook   the entries of the guestbook (SQLite)
"""
