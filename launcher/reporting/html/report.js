// Sorts a table by a click on a heading: numbers (data-v) by size, texts by letters.
function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.v === undefined) return cell.textContent;
  return cell.dataset.v === '' ? NaN : +cell.dataset.v;
}

function compareBy(column, ascending) {
  return (one, other) => {
    const left = valueOf(one, column);
    const right = valueOf(other, column);
    if (typeof left === 'string')
      return ascending ? left.localeCompare(right) : right.localeCompare(left);
    if (isNaN(left)) return 1; // rows without a value stand last
    if (isNaN(right)) return -1;
    return ascending ? left - right : right - left;
  };
}

function sortBy(heading) {
  const table = heading.closest('table');
  const ascending = heading.getAttribute('aria-sort') !== 'ascending';
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute('aria-sort');
  heading.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
  const rows = [...table.tBodies[0].rows];
  for (const row of rows.sort(compareBy(heading.cellIndex, ascending)))
    table.tBodies[0].append(row);
}

for (const button of document.querySelectorAll('th button'))
  button.addEventListener('click', () => sortBy(button.parentElement));
